"""Prompts: the chat messages of one role, from its two templates and a dialogue.

The fixed part comes first and the dialogue last, so that servers can reuse their prefix cache.
"""

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
    """Returns one line per turn: "Seeker: ..." and "Supporter: ...", or "Supporter (Strategy): ..." if `show_strategies`."""
    lines = []
    for turn in history:
        name = "Seeker" if turn.speaker == SEEKER else "Supporter"
        label = f" ({turn.strategy})" if show_strategies and turn.strategy else ""
        lines.append(f"{name}{label}: {turn.text}")
    return "\n".join(lines)


def check_template(role: str, part: str, template: str) -> None:
    """Raises UserError if a template of `role` (`part`: "system" or "query") has a placeholder that the role does not have."""
    check_placeholders(f"roles.{role}.{part}", template, PLACEHOLDERS[role])


def check_placeholders(key: str, template: str, placeholders: Sequence[str]) -> None:
    """Raises UserError if the template under the config key `key` has a placeholder that is not in `placeholders`."""
    for name in _PLACEHOLDER.findall(template):
        if name not in placeholders:
            raise unknown(f"placeholder in {key}", f"{{{name}}}", (f"{{{p}}}" for p in placeholders))


def messages(system: str, query: str, values: Mapping[str, str]) -> list[dict[str, str]]:
    """Returns a system and a user message from two templates. Braces within the inserted `values` are not placeholders."""

    def fill(template: str) -> str:
        return _PLACEHOLDER.sub(lambda match: values[match.group(1)], template).strip()

    return [{"role": "system", "content": fill(system)}, {"role": "user", "content": fill(query)}]
