"""The form of a reply in JSON: its schema, and the field of a request that asks for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

AUTO, NONE = "auto", "none"
FORMS = ("json_schema", "json_object", NONE)
"""The forms of `response_format`, the strictest first; with "none" it is not sent."""


@dataclass(frozen=True)
class ReplyForm:
    """What a reply should look like: its JSON `schema`, and how it is asked for (`structured`: AUTO or one of FORMS)."""

    schema: Mapping
    structured: str

    def response_format(self, form: str, own_server: bool) -> dict | None:
        """Returns the field `response_format` of a request; None if it has none."""
        if form == "json_schema":
            return {"type": form, "json_schema": {"name": "answer", "strict": True, "schema": self.schema}}
        if form == "json_object":
            # llama.cpp and others also take a schema here.
            return {"type": form, "schema": self.schema} if own_server else {"type": form}
        return None


def object_schema(names: Sequence[str], value: Mapping) -> dict:
    """Returns the schema of an object with exactly these names, in this order, and a `value` for each."""
    return each_schema(dict.fromkeys(names, value))


def each_schema(values: Mapping[str, Mapping]) -> dict:
    """Returns the schema of an object with exactly these names, in this order, each with a value of its own schema."""
    return {
        "type": "object",
        "properties": {name: dict(value) for name, value in values.items()},
        "required": list(values),
        "additionalProperties": False,
    }


def integer_schema(low: int, high: int) -> dict:
    """Returns the schema of an integer from `low` to `high`."""
    return {"type": "integer", "minimum": low, "maximum": high}


def text_schema() -> dict:
    """Returns the schema of any text."""
    return {"type": "string"}


def yes_or_no_schema() -> dict:
    """Returns the schema of true or false."""
    return {"type": "boolean"}


def choice_schema(choices: Sequence[str]) -> dict:
    """Returns the schema of one of these strings."""
    return {"type": "string", "enum": list(choices)}
