"""Replies (Tables 1, 3 and 6) and conversations judged by language models and by people.

A sample is drawn from runs, judged, counted, and set in tables.
"""
