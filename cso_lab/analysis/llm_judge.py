"""Toxicity by a language model that rates one utterance a call; also by the simulated judge."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cso_lab.analysis.llm_scorer import LLMScorer
from cso_lab.analysis.toxicity import ATTRIBUTES, Scores
from cso_lab.core.hashing import digest
from cso_lab.roles.parsing import parse_ratings
from cso_lab.roles.prompts import check_placeholders, messages
from cso_lab.roles.simulated.toxicity import VERSION as SIMULATED_VERSION

if TYPE_CHECKING:
    from cso_lab.llm.reply_form import ReplyForm

HIGHEST = 100


class Judge(LLMScorer):
    """Asks `model` for an integer from 0 to 100 for each attribute; a hundredth of it is the score."""

    def __init__(
        self,
        name: str,
        notice: str | None,
        model: Mapping,
        system: str,
        query: str,
        client: Mapping,
        structured: str = "auto",
    ):
        """`system` and `query`: the prompt's templates; {text} is the utterance. `structured`: see `ReplyForm`.

        Raises UserError if a placeholder is wrong.
        """
        for part, template in (("system", system), ("query", query)):
            check_placeholders(f"toxicity.{part}", template, ("text",))
        super().__init__(name, f"{model['model']}, prompt {digest([system, query])[:6]}", notice, model, client)
        self._system, self._query, self._structured = system, query, structured

    def messages(self, text: str) -> list[dict]:
        """Returns the prompt for a text."""
        return messages(self._system, self._query, {"text": " ".join(text.split())})

    def parse(self, reply: str) -> Scores:
        """Returns the scores in a reply. Raises ParseError if one is missing."""
        return {name: value / HIGHEST for name, value in parse_ratings(reply, ATTRIBUTES, HIGHEST).items()}

    def form(self) -> "ReplyForm":
        """Returns the form in which scores are asked for: an integer for each attribute."""
        from cso_lab.llm.reply_form import ReplyForm, integer_schema, object_schema

        return ReplyForm(object_schema(ATTRIBUTES, integer_schema(0, HIGHEST)), self._structured)

    def edition(self) -> int | None:
        """Returns the version of the simulated judge, None for any other model."""
        simulated = self._model["model"].startswith("simulated/")
        return SIMULATED_VERSION if simulated else None
