"""Whole conversations: a model, or a reference, as the supporter of many seekers.

Read `records.py` first (the files), then `cards.py` (who the seekers are), `seekers.py` and `supporters.py` (who speaks), `converse.py`
(how they talk, all at once) and `judges.py` (what is said of every reply afterwards). `evaluation/conversations.py` measures the result.
"""
