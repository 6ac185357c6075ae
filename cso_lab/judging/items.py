"""The replies to be judged: items of one or two replies after a history, the sample they were drawn as, and a judge's answer about one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from cso_lab.core.hashing import digest
from cso_lab.core.records import Turn

COMPARISON, RATING = "comparison", "rating"
SEED, PREFERRED, DISPREFERRED, BOTH = "seed", "preferred", "dispreferred", "both"


@dataclass(frozen=True)
class Item:
    """What is judged in one question: two replies after the same history or, in a rating, one reply.

    `situation` describes the seeker's problem, "" if that is not known. `group` is SEED, PREFERRED or DISPREFERRED in a
    rating, None in a comparison.
    """

    id: str
    situation: str
    history: tuple[Turn, ...]
    replies: tuple[Turn, ...]
    group: str | None = None

    @classmethod
    def of(
        cls, source: object, situation: str, history: tuple[Turn, ...], replies: tuple[Turn, ...], group: str | None = None
    ) -> "Item":
        """Returns an item whose id is a hash, which tells nothing of where the replies come from.

        `source` is any JSON value; it tells items apart whose texts are equal.
        """
        turns = [[turn.speaker, turn.strategy, turn.text] for turn in (*history, *replies)]
        return cls(digest([source, situation, turns, group]), situation, history, replies, group)


@dataclass(frozen=True)
class Sample:
    """The items drawn for one study, with all facts about the draw that its tables mention.

    `table` is the paper's table the study reproduces ("1", "3", "6"), None if the paper has none. `kind` is COMPARISON or
    RATING. `sides` names the replies of every item in their order; in a rating, the groups. `of` counts what there was to draw
    from, and `runs` are the folders it was drawn from.
    """

    table: str | None
    kind: str
    title: str
    sides: tuple[str, ...]
    criteria: tuple[str, ...]
    seed: int
    of: dict[str, int]
    runs: tuple[str, ...]
    items: tuple[Item, ...]
    notices: tuple[str, ...]

    def to_json(self) -> dict:
        """Returns the content of `material.json`."""
        return asdict(self)

    @property
    def fingerprint(self) -> str:
        """A hash of the items and how they are judged; it does not depend on the folders of the runs."""
        return digest([self.kind, self.sides, self.criteria, self.seed, [item.id for item in self.items]])

    @property
    def groups(self) -> tuple[str, ...]:
        """The columns of a rating (Table 6): the groups, and preferred and dispreferred replies taken together."""
        return (*self.sides, BOTH) if {PREFERRED, DISPREFERRED} <= set(self.sides) else self.sides

    @classmethod
    def from_json(cls, data: dict) -> "Sample":
        """Returns the sample that `to_json` gave `data` for."""

        def turns(rows: list) -> tuple[Turn, ...]:
            return tuple(Turn(**row) for row in rows)

        items = tuple(
            Item(**(row | {"history": turns(row["history"]), "replies": turns(row["replies"])})) for row in data["items"]
        )
        lists = {key: tuple(data[key]) for key in ("sides", "criteria", "runs", "notices")}
        return cls(**(data | lists | {"items": items}))


@dataclass(frozen=True)
class Answer:
    """What a judge, a model or a person, answered about an item.

    `first` is the index of the item's reply that was shown as A. `values` maps each criterion to "A", "B" or "tie" or, in a
    rating, to an integer.
    """

    judge: str
    item: str
    first: int
    values: Mapping[str, str | int]
