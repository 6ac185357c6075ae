"""The data looked at before anything is trained on it: strategies over the conversation, toxicity, near-duplicates and leakage."""
