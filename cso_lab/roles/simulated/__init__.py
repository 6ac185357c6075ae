"""Simulated role players: a seeker with a hidden state, and three players who read that state, with seeded noise, off the dialogue.

A simulation, not a language model. It exists so that the whole method runs anywhere, and is named wherever its results are shown.
"""
