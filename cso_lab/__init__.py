"""Chain-of-Strategy Optimization for emotional support dialogue, as a configurable experiment framework."""

import os

__version__ = "0.1.0"

# Without this, importing litellm requests its price list from the network.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
