"""Preference files -> checkpoint: the backbone and its tokenizer, rows fitted to length, TRL's trainers."""
