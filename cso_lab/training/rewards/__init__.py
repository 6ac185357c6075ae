"""Rewards of reinforcement learning (algo=grpo): what each is given (rollout.py), the built-in ones (rewards.py), the judge that scores
replies (judge.py), and the functions that TRL calls (reward_functions.py)."""
