"""What is judged: items of one or two replies after a history, and what must be known of the draw."""

from dataclasses import asdict, dataclass

from cso_lab.dialogue import Turn
from cso_lab.naming import digest

COMPARISON, RATING = "comparison", "rating"
SEED, PREFERRED, DISPREFERRED, BOTH = "seed", "preferred", "dispreferred", "both"


@dataclass(frozen=True)
class Item:
    """What is judged at once: two replies after the same history or, in a rating, one. `group`: whose reply that one is."""

    id: str
    situation: str
    history: tuple[Turn, ...]
    replies: tuple[Turn, ...]
    group: str | None = None

    @classmethod
    def of(
        cls, place: object, situation: str, history: tuple[Turn, ...], replies: tuple[Turn, ...], group: str | None = None
    ) -> "Item":
        """With an id that tells nothing of who said what. `place` tells items apart in which the same is said."""
        said = [[turn.speaker, turn.strategy, turn.text] for turn in (*history, *replies)]
        return cls(digest([place, situation, said, group]), situation, history, replies, group)


@dataclass(frozen=True)
class Material:
    """Everything a judgement rests on but the judges. `table`: the paper's, null where it has none that this can be set beside.

    `sides`: what the replies of every item are called, in their order; in a rating, the groups. `of`: how many there were to draw from.
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
        """The file format of `material.json`."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """The same for the same draw of the same replies, wherever the runs lie."""
        return digest([self.kind, self.sides, self.criteria, self.seed, [item.id for item in self.items]])

    @property
    def groups(self) -> tuple[str, ...]:
        """What a rating has a column for: the groups, and preferred and dispreferred replies together as in Table 6."""
        return (*self.sides, BOTH) if {PREFERRED, DISPREFERRED} <= set(self.sides) else self.sides

    @classmethod
    def from_json(cls, data: dict) -> "Material":
        """Inverse of `to_json`."""

        def turns(rows: list) -> tuple[Turn, ...]:
            return tuple(Turn(**row) for row in rows)

        items = tuple(
            Item(**(row | {"history": turns(row["history"]), "replies": turns(row["replies"])})) for row in data["items"]
        )
        lists = {key: tuple(data[key]) for key in ("sides", "criteria", "runs", "notices")}
        return cls(**(data | lists | {"items": items}))
