"""Reads raw corpora into `Dialogue` records, counts every record that is left out, and splits the dialogues into training and test.

Read corpus.py first, then source.py and hub.py (which file), formats.py (its records), raw.py (shared by the readers), and the readers:
extes.py, esconv.py, and escpro.py with messages.py and pairs.py.
"""

from cso_lab.corpora.corpus import Corpus, Reason, corpus_strategies, divide, load, part_of, seeds, shard, split
from cso_lab.corpora.identity import data_identity, identity_without_hub
from cso_lab.corpora.source import data_file, data_source, test_source

__all__ = [
    "Corpus",
    "Reason",
    "corpus_strategies",
    "data_file",
    "data_identity",
    "data_source",
    "divide",
    "load",
    "identity_without_hub",
    "part_of",
    "seeds",
    "shard",
    "split",
    "test_source",
]
