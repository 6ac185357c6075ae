"""Dialogue expansion by tree search (section 3.1). It knows no LLM: its roles are four callables and its reward is a function.

Read `tree.py` and `reward.py` (equations 1 to 4), `rollout.py` (first path and simulation), then `mcts.py`; `prefetch.py` and
`low_priority.py` only make it faster, `greedy.py` is another search, and `paths.py` reads a finished tree (equations 5 and 6).
"""
