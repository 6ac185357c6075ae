"""One client for language models: transport, retries, rate limits, budget, journal, prices. Knows no role."""

import os

# litellm asks the network for prices when it is imported, unless it has been told not to.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
