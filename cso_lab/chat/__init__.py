"""Talking to the model of a run: on the terminal, or on a page that only this machine can open. Nothing of it is written down."""
