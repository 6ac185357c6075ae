"""Preference files -> checkpoint: the backbone and its tokenizer, rows fitted to length, TRL's trainers, shared prefixes."""

import os

# OpenMP's threads wait for one another some 0.3 ms before they give their core away. Waiting longer, as they do unless told, makes a
# step some 20 times slower beside any other busy process; not waiting at all makes it twice as slow on an idle machine.
# Read once, when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
