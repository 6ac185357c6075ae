"""Chain-of-Strategy Optimization for emotional support dialogue, as a configurable experiment framework."""

import os

__version__ = "0.1.0"

# litellm asks the network for prices when it is imported, unless it has been told not to.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
