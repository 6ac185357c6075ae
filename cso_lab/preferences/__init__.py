"""Turns search trees into preference data (section 3.2): pairs, SFT and KTO rows, the random ablation, and the counts of Table 5.

Read escpro.py first, then rows.py; random.py and generate_negatives.py make CSO-Random, published_escpro.py reads ESC-Pro as published,
statistics.py counts.
"""
