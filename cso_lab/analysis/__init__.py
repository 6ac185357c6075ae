"""A dataset examined before training: strategies by stage, toxicity, near-duplicates and leakage."""
