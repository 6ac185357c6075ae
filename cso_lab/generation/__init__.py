"""Writes predictions.jsonl: the reply of a model, local or on a server, at every supporter turn of the test dialogues.

Read generate.py first, then decoding_strategies.py (appendix E), local.py and served.py (the two kinds of model), batched_decoding.py and
openings.py (how a local model is run).
"""
