"""Asks the judging models, through the client of the search: journal, limits, budget. A pair is asked in both orders."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cso_lab.errors import UserError
from cso_lab.judging.items import COMPARISON, Material
from cso_lab.judging.prompts import asked, question, read_comparison, read_rating
from cso_lab.naming import digest
from cso_lab.roles import LIMITS, Place
from cso_lab.roles.client import Client, Question, estimated_tokens
from cso_lab.roles.journal import Journal
from cso_lab.roles.survey import survey

_PLACE = Place("client", "judges")
_ROLE = "judge"
_ANSWER_TOKENS = 12  # a criterion in an answer takes about so many


@dataclass(frozen=True)
class Answer:
    """What a judge said of an item. `first`: which of the item's replies it was shown as A; `values` by criterion: "A", "B" or "tie", or
    in a rating an integer."""

    judge: str
    item: str
    first: int
    values: Mapping[str, str | int]


def questions(material: Material, settings: Mapping) -> list[tuple[Question, str, str, int]]:
    """Every (question, judge, item, first) of all judges."""
    criteria = asked(material.kind, material.criteria)
    compared = material.kind == COMPARISON
    parse = partial(read_comparison, criteria=criteria)
    if not compared:
        parse = partial(read_rating, criteria=criteria, scale=settings["scale"])
    every = []
    for judge in settings["judges"]:
        model = {"model": judge, "temperature": settings["temperature"], "max_tokens": settings["max_tokens"]}
        for item in material.items:
            for first in (0, 1) if compared else (0,):
                messages = question(item, material, settings, first)
                key = digest([messages, model, item.id, first, settings["seed"]])
                seed = int(digest([settings["seed"], item.id, first])[:7], 16)
                every.append((Question(key, item.id, _ROLE, model, messages, seed, parse), judge, item.id, first))
    return every


def check_judges(settings: Mapping) -> None:
    """A UserError when no call to the judges could work."""
    judges = list(settings["judges"])
    if not judges or len(set(judges)) < len(judges):
        raise UserError(f"judges={judges}: expected at least one model, each once")
    if len({judge.startswith("simulated/") for judge in judges}) > 1:
        raise UserError(f"judges={judges}: simulated judges and language models do not belong in one panel")
    client = Client(**{key: settings["client"][key] for key in LIMITS}, place=_PLACE)
    for judge in judges:
        client.check({_ROLE: judge})


def expected(material: Material, settings: Mapping, folder: Path) -> str:
    """What asking would still take, in a line."""
    from cso_lab.roles import models

    journal = Journal(folder, [item.id for item in material.items])
    journal.read()
    every = [entry[0] for entry in questions(material, settings) if entry[0].key not in journal.answers]
    said = sum(estimated_tokens(one.messages) for one in every)
    answered = len(every) * _ANSWER_TOKENS * len(asked(material.kind, material.criteria))
    judges = settings["judges"]
    costs = {judge: models.cost(judge, said // len(judges), answered // len(judges)) for judge in judges}
    unknown = [judge for judge, cost in costs.items() if cost is None]
    dollars = f"; the price of {', '.join(unknown)} is not known" if unknown else f", ${sum(costs.values()):.2f}"
    return f"{len(every)} calls, about {said:,} + {answered:,} tokens{dollars}"


def ask_judges(material: Material, settings: Mapping, folder: Path) -> tuple[list[Answer], Counter]:
    """(the answers, how many questions were refused by judge). What the journal in `folder` holds is not asked again."""
    every, limits = questions(material, settings), {key: settings["client"][key] for key in LIMITS}
    with Journal(folder, [item.id for item in material.items]) as journal:
        client = Client(**limits, journal=journal, place=_PLACE)
        found, refused = survey(client, journal, [entry[0] for entry in every], "judge", "answer")
    answers = [
        Answer(judge, item, first, values)
        for (_, judge, item, first), values in zip(every, found, strict=True)
        if values is not None
    ]
    return answers, Counter(every[number][1] for number in refused)
