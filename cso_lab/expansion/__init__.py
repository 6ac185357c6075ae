"""The search stage: turns gold dialogues into trees, with a cost estimate beforehand, a progress display and shards.

Read `configured_search.py` (the search a configuration describes), then `expand.py` (running it on all dialogues), `estimate.py`,
`progress_display.py` and `shards.py`.
"""
