"""Toxicity by Google's Perspective API, the paper's scorer. It closes at the end of 2026."""

import json
from collections.abc import Mapping

from cso_lab.analysis.llm_scorer import PLACE, Asked
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
# How the API refuses a text for what it is.
_UNFIT = ("COMMENT_EMPTY", "COMMENT_TOO_LONG", "must be non-empty", "too many bytes", "text too long")
_MODEL = {"model": "perspective", "temperature": 0.0, "max_tokens": 0}


class Perspective(Asked):
    """One request a text for all six attributes. Texts are sent with `doNotStore`."""

    def __init__(self, name: str, notice: str | None, language: str, client: Mapping):
        super().__init__(name, VERSION, notice, _MODEL, client)
        self._language, self._address = language, (client["api_base"], client["api_key_env"])

    def messages(self, text: str) -> list[dict]:
        return [{"role": "user", "content": text}]

    def parse(self, reply: str) -> Scores:
        scores = json.loads(reply)
        if missing := [name for name in ATTRIBUTES if name not in scores]:
            raise ParseError(f"no score for {', '.join(missing)}")
        return scores

    def transport(self) -> Transport:
        return _Analyze(*self._address, language=self._language)

    def edition(self) -> list:
        return [VERSION, self._language]


class _Analyze(Transport):
    """comments:analyze instead of chat completions. The key goes into a header: an address would stand in logs."""

    def __init__(self, api_base: str, api_key_env: str, language: str):
        super().__init__(api_base, api_key_env, PLACE)
        self._language = language

    def check(self, role: str, model: str) -> str:
        return model

    async def complete(self, role: str, model: Mapping, messages: list[dict], seed: int) -> Reply:
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
            # Nothing else differs from text to text.
            raise ServiceError(f"Perspective API: {failure}") from None
        return self._read(role, payload)

    def _read(self, role: str, payload: bytes) -> Reply:
        try:
            answer = json.loads(payload)
            if (error := error_in(answer)) is not None:
                raise fault(role, "Perspective API", error_status(error), error_text(error), {})
            found = answer["attributeScores"]
            scores = {name: float(found[name]["summaryScore"]["value"]) for name in ATTRIBUTES if name in found}
        except (ValueError, TypeError, KeyError):
            raise RetryableError("not an answer of comments:analyze") from None
        return Reply(json.dumps(scores), 0, 0, 0.0)

    def _url(self) -> str:
        return f"{self._base.rstrip('/')}/{VERSION}/comments:analyze"

    def _headers(self) -> dict[str, str]:
        return {"X-Goog-Api-Key": self._key}
