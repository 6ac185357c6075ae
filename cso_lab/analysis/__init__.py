"""Examines a dataset before training: strategies by stage (section 4.3), toxicity (section 4.4), near-duplicates and leakage, what tells
preferred from dispreferred replies.

Read analyse.py first, then strategy_by_stage.py, toxicity.py, duplicates.py and distinguishing.py; the toxicity scorers are classifier.py,
perspective.py and llm_judge.py, the latter two on llm_scorer.py.
"""
