"""Raw corpora in, `Dialogue` records out, with an account of every record that was left out."""

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
