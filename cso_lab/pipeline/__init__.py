"""The stages of a run in their order, and what is made sure of before the first."""
