"""Raw corpora in, `Dialogue` records out, with an account of every record that was left out."""

from cso_lab.corpora.corpus import Corpus, Reason, data_file, load, part_of, seeds, shard, split

__all__ = ["Corpus", "Reason", "data_file", "load", "part_of", "seeds", "shard", "split"]
