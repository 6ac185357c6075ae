"""One client for language models: transport, retries, rate limits, budget, journal, prices. Knows no role."""
