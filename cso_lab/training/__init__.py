"""Preference files -> checkpoint: the backbone and its tokenizer, rows fitted to length, TRL's trainers, shared prefixes."""

import ctypes
import os

# OpenMP's threads wait for one another some 0.3 ms before they give their core away. Waiting longer, as they do unless told, makes a
# step some 20 times slower beside any other busy process; not waiting at all makes it twice as slow on an idle machine.
# Read once, when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _keep_freed_memory() -> None:
    """Have glibc keep what it is given back: a step allocates what the last one freed, and fresh pages cost a sixth of its time."""
    trim_threshold, mmap_max = -1, -4  # names of the settings in malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    mallopt(trim_threshold, -1)
    mallopt(mmap_max, 0)


_keep_freed_memory()
