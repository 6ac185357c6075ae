"""Checkpoint -> predictions: what a model says at every supporter turn of the test dialogues."""
