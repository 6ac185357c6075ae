"""Scores predictions: Q, Q_W, B and R-L (section 5.1), per-strategy values, intervals, and paired comparisons of models.

Read metrics.py first (the equations), then score.py (a predictions file), testset.py and paired.py; hf_metrics.py offers the metrics to
the `evaluate` library, and __main__.py is the command.
"""
