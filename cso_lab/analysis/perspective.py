"""Toxicity by Google's Perspective API, the paper's scorer (section 4.4). The service ends in 2026."""

import json
from collections.abc import Mapping

from cso_lab.analysis.llm_scorer import LOCATION, LLMScorer
from cso_lab.analysis.toxicity import ATTRIBUTES, Scores
from cso_lab.llm.errors import (
    ParseError,
    RefusedError,
    RetryableError,
    RoleFailure,
    ServiceError,
    error_in,
    error_status,
    error_text,
    fault,
)
from cso_lab.llm.transport import Reply, Transport

VERSION = "v1alpha1"
# Parts of the API's error messages about a text itself.
_UNFIT = ("COMMENT_EMPTY", "COMMENT_TOO_LONG", "must be non-empty", "too many bytes", "text too long")
_MODEL = {"model": "perspective", "temperature": 0.0, "max_tokens": 0}


class Perspective(LLMScorer):
    """Requests all six attributes of a text in one call. Texts are sent with `doNotStore`."""

    def __init__(self, name: str, notice: str | None, language: str, client: Mapping):
        super().__init__(name, VERSION, notice, _MODEL, client)
        self._language, self._address = language, (client["api_base"], client["api_key_env"])

    def messages(self, text: str) -> list[dict]:
        """Returns the text as a user message."""
        return [{"role": "user", "content": text}]

    def parse(self, reply: str) -> Scores:
        """Returns the scores in a reply. Raises ParseError if one is missing."""
        scores = json.loads(reply)
        if missing := [name for name in ATTRIBUTES if name not in scores]:
            raise ParseError(f"no score for {', '.join(missing)}")
        return scores

    def transport(self) -> Transport:
        """Returns the transport for `comments:analyze`."""
        return _Analyze(*self._address, language=self._language)

    def edition(self) -> list:
        """Returns the API's version and the language."""
        return [VERSION, self._language]


class _Analyze(Transport):
    """Calls comments:analyze instead of chat completions. The key is sent in a header, since addresses are logged."""

    def __init__(self, api_base: str, api_key_env: str, language: str):
        super().__init__(api_base, api_key_env, LOCATION)
        self._language = language

    def check(self, role: str, model: str) -> str:
        """Returns `model`; the API has no choice of models to check."""
        return model

    async def complete(self, role: str, model: Mapping, messages: list[dict], seed: int) -> Reply:
        """Returns the scores of the last message as JSON. Raises RefusedError if the API refuses the text."""
        body = {
            "comment": {"text": messages[-1]["content"]},
            "languages": [self._language],
            "requestedAttributes": {name: {} for name in ATTRIBUTES},
            "doNotStore": True,
        }
        try:
            payload = await self._post(role, model["model"], body)
        except RoleFailure as failure:
            if any(reason in str(failure) for reason in _UNFIT):
                raise RefusedError(str(failure)) from None
            # Any other failure does not depend on the text.
            raise ServiceError(f"Perspective API: {failure}") from None
        return self._read(role, payload)

    def _read(self, role: str, payload: bytes) -> Reply:
        try:
            answer = json.loads(payload)
            if (error := error_in(answer)) is not None:
                raise fault(role, "Perspective API", error_status(error), error_text(error), {})
            attributes = answer["attributeScores"]
            scores = {name: float(attributes[name]["summaryScore"]["value"]) for name in ATTRIBUTES if name in attributes}
        except (ValueError, TypeError, KeyError):
            raise RetryableError("not an answer of comments:analyze") from None
        return Reply(json.dumps(scores), 0, 0, 0.0)

    def _url(self) -> str:
        return f"{self._base.rstrip('/')}/{VERSION}/comments:analyze"

    def _headers(self) -> dict[str, str]:
        return {"X-Goog-Api-Key": self._key}
