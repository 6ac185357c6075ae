"""One client for language models: it sends requests with retries, rate limits, a budget and a journal, and knows nothing of roles.

Read `client.py` first (a request from start to end), then what it uses: `transport.py` (one call), `errors.py` (what a failed call
means), `journal.py`, `budget.py`, `prices.py`, `rate_limiter.py`; `ask_all.py` sends many independent requests.
"""
