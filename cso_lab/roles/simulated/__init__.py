"""Simulated role players: a seeker with a hidden state, and three who read that state, with seeded noise, off the dialogue.

A simulation, not a language model. It lets the whole method run anywhere, and is named wherever its results are shown.
"""
