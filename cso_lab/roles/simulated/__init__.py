"""Simulated role players: a seeker with a hidden state, and three roles that infer this state from the dialogue, with seeded noise.

They are no language models. They let the whole method run anywhere, and results made with them say so. Read `seeker_state.py` first,
then `provider.py`; `judges.py` and `toxicity.py` simulate judges of replies and of toxicity.
"""
