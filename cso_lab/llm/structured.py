"""Structured replies: in which form each model is asked for JSON.

A server that follows a schema gives no reply that cannot be read. What servers take differs, and may change while they are asked, so a
form that is refused is given up for a lesser one. The parsers of replies expect none of it.
"""

import asyncio
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from cso_lab.core.hashing import digest
from cso_lab.llm import prices
from cso_lab.llm.errors import ParseError, PromptTooLong, RefusedError, RetryableError, RoleFailure, one_line
from cso_lab.llm.journal import NO_DIALOGUE, Journal
from cso_lab.llm.question import Question
from cso_lab.llm.reply_form import AUTO, FORMS, NONE

if TYPE_CHECKING:
    from cso_lab.llm.transport import Transport

PROBE_ROLE = "format probe"
PROBE_TEXT = "Output this JSON object and nothing else:"
_PROBE_ATTEMPTS = 2  # of each form, where the server fails without a reason
_MAX_PROBES = 3  # in one run, as long as they show nothing
# Some servers answer with these instead of 400 if they do not know a form; others of 500 and above mean that a server is overloaded.
_FAILURES = (500, 501)
# So many failures in a row, while questions are answered in a lesser form, are a refusal: with a fifth of all calls failing, 8 in a row
# happen 3 times in a million. One that is no fault of the server's (a 400, say) counts as 3.
_FAILURES_THAT_REFUSE, _REJECTION = 8, 3
_OF_FORMAT = re.compile(
    r"response[_ ]?format|json[_ ]?(schema|object|mode|tool_call)|structured|guided|grammar|output[_ ](format|config)|schema",
    re.IGNORECASE,
)


class FormRefused(Exception):
    """A server refused the form in which it was asked to reply."""


def refuses_form(question: Question, error: Exception) -> bool:
    """Returns whether a failed call failed because of its `response_format`, as far as its error says."""
    asked = question.model.get("response_format") and not isinstance(error, RefusedError)
    return bool(asked and _OF_FORMAT.search(str(error)))


class FormNegotiation:
    """Makes attempts at questions, those for JSON in the strictest form that their model takes.

    For AUTO that is what litellm knows of an API model. A server of the user's own is asked once, with a short question whose reply is
    kept in the journal. Neither decides which questions there are or what their keys are: a journaled reply serves whatever its form was.
    """

    def __init__(self, attempt: Callable[..., Awaitable], transport: "Transport", journal: Journal | None):
        """`attempt` (question, number, wanted) makes one call and returns the parsed reply."""
        self._attempt, self._transport, self._journal = attempt, transport, journal
        self._forms = transport.forms  # by model and `structured`
        self._failures: Counter[tuple[str, str]] = Counter()  # in a row, of calls in that form
        self._probing: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._probes: Counter[tuple[str, str]] = Counter()

    def without_asking(self, question: Question) -> Question:
        """Returns the question in the form that its model is known to take, without asking the server; it carries no form any more."""
        if question.form is None:
            return question
        model, structured = question.model["model"], question.form.structured
        if structured == AUTO:
            own = self._transport.own_server(question.role, model)
            structured = self._forms.get((model, AUTO), NONE) if own else prices.structured_form(model)
        return replace(self._in_form(question, structured), form=None)

    async def attempt(self, question: Question, number: int, wanted: Callable[[], bool]) -> object:
        """Makes one attempt at a question and returns the parsed reply.

        Where the form of the reply is refused, the same attempt goes on in a lesser one, and so do later questions to the model.
        """
        if question.form is None:
            return await self._attempt(question, number, wanted)
        key = (question.model["model"], question.form.structured)
        strictest = FORMS.index(await self._form(key, question))
        # Of a server that failed, only a reply without the form can show that it refuses the form.
        first = min(strictest + number - 1, len(FORMS) - 1) if self._failures[key] else strictest
        refusal = None
        for form in FORMS[first:]:
            try:
                answer = await self._attempt(self._in_form(question, form), number, wanted)
            except ParseError:  # a reply, all the same
                self._note_reply(key, form, refusal)
                raise
            except (RefusedError, PromptTooLong):
                raise
            except (FormRefused, RoleFailure) as error:
                if form == NONE:
                    raise
                refusal = error
            except RetryableError as error:
                self._failures[key] += form == FORMS[strictest] != NONE and error.status in _FAILURES
                raise
            else:
                self._note_reply(key, form, refusal)
                return answer

    def _note_reply(self, key: tuple[str, str], form: str, refusal: Exception | None) -> None:
        """Notes a reply in `form`, before which a stricter one met `refusal`; gives up the stricter ones, and says so, if it is time."""
        current = self._forms.get(key)
        if form == current:
            self._failures[key] = 0
        if current is None or FORMS.index(form) <= FORMS.index(current):
            return
        self._failures[key] += _REJECTION * isinstance(refusal, RoleFailure)
        if isinstance(refusal, FormRefused) or self._failures[key] >= _FAILURES_THAT_REFUSE:
            self._forms[key], self._failures[key] = form, 0
            reason = one_line(refusal) if refusal else "nothing but server errors"
            print(f"{key[0]}: {current} replies are refused ({reason}); structured={form} from here on", file=sys.stderr)

    async def _form(self, key: tuple[str, str], question: Question) -> str:
        """Returns the form in which the model is asked at present."""
        model, structured = key
        if key in self._forms:
            return self._forms[key]
        if structured != AUTO:
            self._forms[key] = structured
        elif not self._transport.own_server(question.role, model):
            self._forms[key] = prices.structured_form(model)
        else:
            async with self._probing[key]:  # one asks, the others wait
                if key not in self._forms and self._probes[key] < _MAX_PROBES:
                    self._probes[key] += 1
                    if form := await self._probe(question):
                        self._forms[key] = form
        return self._forms.get(key, NONE)

    async def _probe(self, question: Question) -> str | None:
        """Returns the strictest form the server takes, which it is asked unless the journal says so; None if it replies to none."""
        probes = {form: self._probe_question(question, form) for form in FORMS}
        for form, probe in probes.items():
            if self._journal and self._journal.pop_cached(probe.key) is not None:
                return form
        for form, probe in probes.items():
            for number in range(1, 1 + _PROBE_ATTEMPTS):
                try:
                    await self._attempt(probe, number, lambda: True)
                except ParseError:
                    return form
                except (FormRefused, RoleFailure):
                    break
                except RetryableError as error:
                    if error.status not in _FAILURES:
                        return None
                else:
                    return form
        return None

    def _probe_question(self, question: Question, form: str) -> Question:
        names = question.form.schema["properties"]
        text = f"{PROBE_TEXT} {json.dumps({name: _example(value) for name, value in names.items()})}"
        model = question.model["model"]
        key = digest([PROBE_ROLE, self._transport.own_server(question.role, model), model, form])
        probe = replace(question, key=key, dialogue=NO_DIALOGUE, counted_as=PROBE_ROLE, seed=0, parse=str)
        return self._in_form(replace(probe, messages=[{"role": "user", "content": text}]), form)

    def _in_form(self, question: Question, form: str) -> Question:
        own_server = bool(self._transport.own_server(question.role, question.model["model"]))
        response_format = question.form.response_format(form, own_server)
        return replace(question, model={**question.model, "response_format": response_format}) if response_format else question


def _example(value: Mapping) -> object:
    """Returns a value that fits the schema."""
    if "enum" in value:
        return value["enum"][0]
    return {"string": "text", "boolean": False}[value["type"]] if "minimum" not in value else value["minimum"]
