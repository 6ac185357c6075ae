"""Replies judged by language models and by people (Tables 1, 3 and 6): a sample is drawn from runs, judged, counted, and set in tables."""
