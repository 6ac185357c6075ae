"""The stages of a run in their order: the keys their results are found by, and what is made sure of before the first."""
