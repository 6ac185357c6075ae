"""Lets language models judge a sample, each pair in both orders, with the client of the search: journal, rate limits, budget."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from cso_lab.config.clients import LIMITS
from cso_lab.core.errors import UserError
from cso_lab.core.hashing import digest
from cso_lab.judging.items import PAIRWISE, Answer, Sample
from cso_lab.judging.prompts import TIE, A, B, asked_criteria, judge_messages, read_comparison, read_rating
from cso_lab.llm import prices
from cso_lab.llm.ask_all import ask_all
from cso_lab.llm.client import Client, Question, estimated_tokens
from cso_lab.llm.config_location import ConfigLocation
from cso_lab.llm.journal import Journal
from cso_lab.llm.question import model_config
from cso_lab.llm.reply_form import ReplyForm, choice_schema, integer_schema, object_schema

_PLACE = ConfigLocation("client", "judges", "max_tokens", "temperature")
_ROLE = "judge"
_ANSWER_TOKENS = 12  # about so many for each criterion of a reply


def judge_questions(sample: Sample, settings: Mapping) -> list[tuple[Question, str, str, int]]:
    """Returns (question, judge, item id, first) for every judge, item and order; `first` as in `Answer`."""
    criteria = asked_criteria(sample.kind, sample.criteria)
    compared = sample.kind in PAIRWISE
    parse = partial(read_comparison, criteria=criteria)
    if not compared:
        parse = partial(read_rating, criteria=criteria, scale=settings["scale"])
    value = choice_schema((A, B, TIE)) if compared else integer_schema(*settings["scale"])
    form = ReplyForm(object_schema(criteria, value), settings["structured"])
    every = []
    for judge in settings["judges"]:
        model = model_config(judge, settings["temperature"], settings["max_tokens"], settings["extra"])
        for item in sample.items:
            for first in (0, 1) if compared else (0,):
                messages = judge_messages(item, sample, settings, first)
                key = digest([messages, model, item.id, first, settings["seed"]])
                seed = int(digest([settings["seed"], item.id, first])[:7], 16)
                every.append((Question(key, item.id, _ROLE, model, messages, seed, parse, form), judge, item.id, first))
    return every


def check_judges(settings: Mapping) -> None:
    """Raises UserError if no call to the judges could work."""
    judges = list(settings["judges"])
    if not judges or len(set(judges)) < len(judges):
        raise UserError(f"judges={judges}: expected at least one model, each once")
    if len({judge.startswith("simulated/") for judge in judges}) > 1:
        raise UserError(f"judges={judges}: simulated judges and language models do not belong in one panel")
    client = Client(**{key: settings["client"][key] for key in LIMITS}, place=_PLACE)
    for judge in judges:
        client.check({_ROLE: judge})
        client.check_batches({_ROLE: judge})


def estimate_calls(sample: Sample, settings: Mapping, folder: Path) -> str:
    """Returns in one line the calls, tokens and dollars that judging would still take, without those in the journal."""

    journal = Journal(folder, [item.id for item in sample.items])
    journal.read()
    every = [entry[0] for entry in judge_questions(sample, settings) if entry[0].key not in journal.answers]
    prompt_tokens = sum(estimated_tokens(one.messages) for one in every)
    reply_tokens = len(every) * _ANSWER_TOKENS * len(asked_criteria(sample.kind, sample.criteria))
    judges = settings["judges"]
    share = prompt_tokens // len(judges), reply_tokens // len(judges)
    dollars = prices.describe(dict.fromkeys(judges, share), "client.batch")
    return f"{len(every)} calls, about {prompt_tokens:,} + {reply_tokens:,} tokens{dollars}"


def ask_judges(sample: Sample, settings: Mapping, folder: Path) -> tuple[list[Answer], Counter]:
    """Returns (the answers, {judge: number of questions without a usable answer}).

    Questions with an answer in the journal in `folder` are not sent again. Raises BudgetSpent if `client.budget` is used up.
    """
    every, limits = judge_questions(sample, settings), {key: settings["client"][key] for key in LIMITS}
    with Journal(folder, [item.id for item in sample.items]) as journal:
        client = Client(**limits, journal=journal, place=_PLACE)
        replies, refused = ask_all(client, journal, [entry[0] for entry in every], "judge", "answer")
    answers = [
        Answer(judge, item, first, values)
        for (_, judge, item, first), values in zip(every, replies, strict=True)
        if values is not None
    ]
    return answers, Counter(every[number][1] for number in refused)
