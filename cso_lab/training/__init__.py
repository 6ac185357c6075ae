"""Preference files -> checkpoint: the backbone and its tokenizer, rows fitted to length, TRL's trainers."""

import os

# Threads that wait for one another give their core away instead of spinning on it: beside any other busy process, spinning
# makes a small model's steps some 20 times slower. Read once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
