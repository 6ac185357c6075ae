"""How the replies of each role are asked for: in which form, and what becomes of one that was cut."""

from collections.abc import Mapping

from cso_lab.core.strategies import StrategySet
from cso_lab.llm.in_process import OWN_SUPPORTER
from cso_lab.llm.reply_form import ReplyForm, integer_schema, object_schema
from cso_lab.roles import parsing


def reply_options(config: Mapping, strategies: StrategySet) -> dict[str, dict]:
    """Returns {role: fields of its `Question`s}; `config` is the config node `roles`.

    Strategist and judge answer in JSON and are given its schema as their `structured` says. Seeker and supporter speak: an utterance that
    was cut is asked for again with more room, and then trimmed or refused by `cut_replies`. The replies of the others are of no use in
    parts.
    """
    trim = parsing.trim_utterance if config.get("cut_replies", "trim") == "trim" else None
    schemas = {
        "strategist": object_schema(strategies.names, integer_schema(*parsing.SUITABILITY)),
        "judge": object_schema(tuple(parsing.CRITERIA), integer_schema(*parsing.QUALITY)),
    }
    forms = {
        role: {"form": ReplyForm(schema, config[role]["structured"])}
        for role, schema in schemas.items()
        if config[role].get("structured")
    }
    # The cell's own model has no more room: its replies are limited as they are in generation. One without a whole sentence is its reply.
    own = {"trim": trim and (lambda text: trim(text) or text), "more_room": False}
    given = {"trim": trim, "more_room": True}
    spoken = {"seeker": given, "supporter": own if config["supporter"]["model"] == OWN_SUPPORTER else given}
    return spoken | forms
