"""The four players of the search (appendix A): prompts, reply parsing, the LLM client, and the simulated players."""

import os

# litellm asks the network for prices when it is imported, unless it has been told not to.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
