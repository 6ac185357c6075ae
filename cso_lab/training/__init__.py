"""Trains a backbone on preference rows with TRL's trainers, in one process or several, and shares the prefixes that rows have in common.

Read train.py first, then backbone.py, chat_format.py and rows.py (what goes in), arguments.py, trainer.py, samplers.py and callbacks.py
(the trainer), prefix_forest.py, tree_attention.py and shared_forward.py (prefix sharing), processes.py, agent.py and worker.py.
"""

import os

# OpenMP's threads spin for this many rounds, some 0.3 ms, before they give up their core. The default is to spin longer, which makes a
# training step some 20 times slower beside any other busy process; not spinning at all makes it twice as slow on an idle machine.
# OpenMP reads the variable once, when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
