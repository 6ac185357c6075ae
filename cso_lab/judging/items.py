"""What is judged: items of one or two replies after a history or of two conversations, their sample, and a judge's answer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from cso_lab.core.hashing import digest
from cso_lab.core.records import Turn

# What is asked about an item: which of two replies is better, how good a reply is, which of two conversations is better. Each is also the
# key in conf/judging.yaml of the prompt that asks it.
COMPARISON, RATING, CONVERSATIONS = "comparison", "rating", "conversation_comparison"
PAIRWISE = (COMPARISON, CONVERSATIONS)
SEED, PREFERRED, DISPREFERRED, BOTH = "seed", "preferred", "dispreferred", "both"


@dataclass(frozen=True)
class Item:
    """What is judged in one question: two replies after the same history, in a rating one reply, or two conversations with the same seeker.

    `situation` describes the seeker's problem, "" if that is not known. `group` is SEED, PREFERRED or DISPREFERRED in a
    rating, else None. `conversations` holds all turns of two conversations; an item that has them has no history and no replies.
    """

    id: str
    situation: str
    history: tuple[Turn, ...]
    replies: tuple[Turn, ...]
    group: str | None = None
    conversations: tuple[tuple[Turn, ...], ...] = ()

    @classmethod
    def of(
        cls, source: object, situation: str, history: tuple[Turn, ...], replies: tuple[Turn, ...], group: str | None = None
    ) -> "Item":
        """Returns an item whose id is a hash, which tells nothing of where the replies come from.

        `source` is any JSON value; it tells items apart whose texts are equal.
        """
        return cls(digest([source, situation, _fields((*history, *replies)), group]), situation, history, replies, group)

    @classmethod
    def of_conversations(cls, source: object, situation: str, conversations: tuple[tuple[Turn, ...], ...]) -> "Item":
        """Returns an item of two conversations; see `of`."""
        return cls(digest([source, situation, *map(_fields, conversations)]), situation, (), (), None, conversations)

    @property
    def sides(self) -> tuple[tuple[Turn, ...], ...]:
        """The turns of each conversation, or each reply as a single turn, in the order of the sample's `sides`."""
        return self.conversations or tuple((reply,) for reply in self.replies)


@dataclass(frozen=True)
class Sample:
    """The items drawn for one study, with all facts about the draw that its tables mention.

    `table` is the paper's table the study reproduces ("1", "3", "6"), None if the paper has none. `kind` is COMPARISON, RATING or
    CONVERSATIONS. `sides` names the sides of every item in their order; in a rating, the groups. `of` counts what there was to draw
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

        def item(row: dict) -> Item:
            # Files of before there were conversations have none.
            conversations = tuple(map(turns, row.get("conversations", ())))
            texts = {"history": turns(row["history"]), "replies": turns(row["replies"]), "conversations": conversations}
            return Item(**(row | texts))

        lists = {key: tuple(data[key]) for key in ("sides", "criteria", "runs", "notices")}
        return cls(**(data | lists | {"items": tuple(map(item, data["items"]))}))


@dataclass(frozen=True)
class Answer:
    """What a judge, a model or a person, answered about an item.

    `first` is the index of the item's side (reply or conversation) that was shown as A. `values` maps each criterion to "A", "B" or
    "tie" or, in a rating, to an integer.
    """

    judge: str
    item: str
    first: int
    values: Mapping[str, str | int]


def _fields(turns: tuple[Turn, ...]) -> list[list]:
    return [[turn.speaker, turn.strategy, turn.text] for turn in turns]
