"""From a dialogue to the chat messages of one role: fixed part first, what changes last."""

import re
from collections.abc import Mapping, Sequence

from cso_lab.core.errors import unknown
from cso_lab.core.records import SEEKER, Turn

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
PLACEHOLDERS = {
    "seeker": ("dialogue", "scene", "description"),
    "supporter": ("dialogue", "scene", "description", "strategy", "strategy_description"),
    "strategist": ("dialogue", "scene", "description", "strategies"),
    "judge": ("dialogue", "scene", "description"),
}


def transcript(history: Sequence[Turn], show_strategies: bool) -> str:
    """One line a turn: "Seeker: ..." and "Supporter: ..." or, where asked, "Supporter (Strategy): ..."."""
    lines = []
    for turn in history:
        name = "Seeker" if turn.speaker == SEEKER else "Supporter"
        label = f" ({turn.strategy})" if show_strategies and turn.strategy else ""
        lines.append(f"{name}{label}: {turn.text}")
    return "\n".join(lines)


def check_template(role: str, part: str, template: str) -> None:
    """A UserError names a placeholder that `role` does not have."""
    check_placeholders(f"roles.{role}.{part}", template, PLACEHOLDERS[role])


def check_placeholders(key: str, template: str, known: Sequence[str]) -> None:
    """A UserError names a placeholder of the template under `key` that is not among those `known`."""
    for name in _PLACEHOLDER.findall(template):
        if name not in known:
            raise unknown(f"placeholder in {key}", f"{{{name}}}", (f"{{{p}}}" for p in known))


def messages(system: str, query: str, values: Mapping[str, str]) -> list[dict[str, str]]:
    """Fill both templates. Values are inserted as they are: braces in what somebody said mean nothing."""

    def fill(template: str) -> str:
        return _PLACEHOLDER.sub(lambda match: values[match.group(1)], template).strip()

    return [{"role": "system", "content": fill(system)}, {"role": "user", "content": fill(query)}]
