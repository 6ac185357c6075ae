"""The stages of a run in their order, the cache that finds their results by key, and the checks before the first stage."""
