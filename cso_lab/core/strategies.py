"""Support strategies: the two closed sets, the paper's 15 -> 8 map (Table 8), and the "(Strategy) text" form of a reply."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cso_lab.core.errors import unknown

OTHERS = "Others"
"""What ESConv labels a turn that no other strategy describes; of ExTES's label of that name no strategy of ours is meant."""


def fold_label(label: str) -> str:
    """Spelling differences that never matter: case, surrounding blanks, `-`/`_`/runs of blanks, and `&` for `and`."""
    return " ".join(re.sub(r"[\s_-]+", " ", label.replace("&", " and ")).strip(" .:*\"'()[]").lower().split())


@dataclass(frozen=True)
class StrategySet:
    """A closed set of strategies with one-line descriptions, and the labels of raw files that mean one of them."""

    name: str
    descriptions: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        table = {fold_label(name): name for name in self.descriptions}
        table.update({fold_label(alias): name for alias, name in self.aliases.items()})
        object.__setattr__(self, "_by_label", table)

    @property
    def names(self) -> tuple[str, ...]:
        """The strategies in their canonical order, which is also the order that breaks ties."""
        return tuple(self.descriptions)

    def find(self, label: str) -> str | None:
        """The strategy a raw label means, whatever its case, or None."""
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
    # Table 8: the 15 usable ExTES labels onto the 8 strategies. "Others" means none of them.
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
    """The set called `name`; a UserError names the valid ones."""
    if name not in SETS:
        raise unknown("strategy set", name, SETS)
    return SETS[name]


def format_reply(strategy: str, text: str) -> str:
    """ "(Strategy) text", the form of every supporter turn that a model reads or writes."""
    return f"({strategy}) {text}"


_REPLY = re.compile(r"\s*(?P<mark>[\"'*`]*)\s*[(\[]\s*(?P<label>[^()\[\]]{1,80}?)\s*[)\]](?P=mark)?:?\s*", re.DOTALL)


def parse_reply(reply: str, strategies: StrategySet) -> tuple[str | None, str]:
    """(strategy, text) of a model's reply; strategy is None, and text the whole reply, when it does not open with a known one."""
    match = _REPLY.match(reply)
    strategy = strategies.find(match["label"]) if match else None
    if strategy is None:
        return None, reply.strip()
    return strategy, reply[match.end() :].strip()
