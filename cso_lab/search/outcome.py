"""The outcome of evaluating one leaf, which the search applies and the prefetcher keeps."""

from collections.abc import Mapping
from dataclasses import dataclass

from cso_lab.core.records import Scores
from cso_lab.search.rollout import Expansion


@dataclass(frozen=True)
class Outcome:
    """The result of evaluating one leaf, before any of it is applied to the tree."""

    reward: float
    expansion: Expansion | None = None  # of the leaf, if it was unexpanded
    scores: Scores | None = None  # of the leaf's own turn, if the leaf is an end
    priors: Mapping[str, float] | None = None  # of its new children; None if it is an end
    child: Expansion | None = None  # of the child that the simulation starts from
    child_scores: Scores | None = None
