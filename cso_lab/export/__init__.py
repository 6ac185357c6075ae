"""Writes a run's model or dataset as a folder that servers, libraries and the model hub read, with a card that describes it.

Read model.py and dataset.py first (what is in the folder), then facts.py and base.py (what the cards say); cards/ holds their templates.
"""
