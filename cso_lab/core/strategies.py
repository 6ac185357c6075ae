"""Support strategies: the two closed sets, the paper's map of 15 labels to 8 (Table 8), and the "(Strategy) text" form of a reply."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cso_lab.core.errors import unknown

OTHERS = "Others"
"""ESConv's label of a turn that no other strategy describes. ExTES has a label of the same name, which maps to no strategy."""


def fold_label(label: str) -> str:
    """Returns a label without differences of spelling: in lower case, without marks around it, blanks for `-` and `_`, `and` for `&`."""
    return " ".join(re.sub(r"[\s_-]+", " ", label.replace("&", " and ")).strip(" .:*\"'()[]").lower().split())


@dataclass(frozen=True)
class StrategySet:
    """A closed set of strategies with one-line descriptions. `aliases` maps other labels of raw files to a strategy."""

    name: str
    descriptions: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        table = {fold_label(name): name for name in self.descriptions}
        table.update({fold_label(alias): name for alias, name in self.aliases.items()})
        object.__setattr__(self, "_by_label", table)

    @property
    def names(self) -> tuple[str, ...]:
        """The strategies in their canonical order, by which ties are broken."""
        return tuple(self.descriptions)

    def find(self, label: str) -> str | None:
        """Returns the strategy of a raw label, or None; spelling as in `fold_label` does not matter."""
        return self._by_label.get(fold_label(label))


EXTES = StrategySet(
    name="extes",
    descriptions={
        "Emotional Validation": "acknowledge what the seeker feels and take it seriously, without judging it",
        "Affirmation": "point out strengths and efforts, encourage, and give hope",
        "Collaborative Planning": "work out together what could be done next",
        "Empathetic Statements": "show that you understand what the seeker is going through and feel with them",
        "Avoid Judgment and Criticism": "keep the conversation safe: no blame, no criticism, whatever is said",
        "Provide Different Perspectives": "offer another way to look at the situation or at the people in it",
        "Reframe Negative Thoughts": "help turn a bleak, sweeping thought into a fairer one",
        "Share Information": "give useful facts about feelings, coping or self-care",
    },
    # Table 8 maps 15 ExTES labels to the 8 strategies. Its label "Others" maps to none.
    aliases={
        "Reflective Statements": "Emotional Validation",
        "Clarification": "Emotional Validation",
        "Normalize Experiences": "Emotional Validation",
        "Offer Hope": "Affirmation",
        "Suggest Options": "Collaborative Planning",
        "Stress Management": "Collaborative Planning",
        "Promote Self-Care Practices": "Collaborative Planning",
    },
)

ESCONV = StrategySet(
    name="esconv",
    descriptions={
        "Question": "ask for what helps the seeker to put the problem into words",
        "Restatement or Paraphrasing": "say back in fewer words what the seeker said",
        "Reflection of Feelings": "name the feelings the seeker shows",
        "Self-disclosure": "share a similar experience or feeling of your own",
        "Affirmation and Reassurance": "point out strengths and reassure",
        "Providing Suggestions": "suggest what could be changed, without dictating it",
        "Information": "give useful facts, data, or resources",
        OTHERS: "exchange pleasantries or anything that fits no other strategy",
    },
    aliases={
        "Questions": "Question",
        "Restatement": "Restatement or Paraphrasing",
        "Paraphrasing": "Restatement or Paraphrasing",
        "Reflection": "Reflection of Feelings",
        "Approval and Reassurance": "Affirmation and Reassurance",
        "Direct Guidance": "Providing Suggestions",
        "Suggestions": "Providing Suggestions",
        "Providing Information": "Information",
        "Other": OTHERS,
    },
)

SETS = {strategies.name: strategies for strategies in (EXTES, ESCONV)}


def strategy_set(name: str) -> StrategySet:
    """Returns the set called `name`. Raises UserError, with the valid names, if there is none."""
    if name not in SETS:
        raise unknown("strategy set", name, SETS)
    return SETS[name]


def format_reply(strategy: str, text: str) -> str:
    """Returns "(Strategy) text", the form of supporter turns in prompts and replies."""
    return f"({strategy}) {text}"


_REPLY = re.compile(r"\s*(?P<mark>[\"'*`]*)\s*[(\[]\s*(?P<label>[^()\[\]]{1,80}?)\s*[)\]](?P=mark)?:?\s*", re.DOTALL)


def parse_reply(reply: str, strategies: StrategySet) -> tuple[str | None, str]:
    """Returns (strategy, text) of a model's reply, or (None, the whole reply) if it does not begin with a known strategy."""
    match = _REPLY.match(reply)
    strategy = strategies.find(match["label"]) if match else None
    if strategy is None:
        return None, reply.strip()
    return strategy, reply[match.end() :].strip()
