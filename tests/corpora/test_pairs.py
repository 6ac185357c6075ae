"""Preference pairs in TRL's forms, and this project's own: strings, messages, with and without a prompt of their own."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cso_lab.core.files import write_jsonl
from cso_lab.core.records import SEEKER, SUPPORTER, Turn
from cso_lab.core.strategies import EXTES
from cso_lab.corpora.escpro import read_escpro
from cso_lab.preferences.published_escpro import expanded_paths
from cso_lab.preferences.rows import pair_rows

A, B = "Affirmation", "Share Information"


def user(content):
    return {"role": "user", "content": content}


def helper(content):
    return {"role": "assistant", "content": content}


HISTORY = [user("I am tired."), helper(f"({B}) Since when?"), user("Weeks.")]
TEXT = f"Human: I am tired.\n\nAssistant: ({B}) Since when?\n\nHuman: Weeks."
GOOD, BAD = f"({A}) You hold on.", f"({B}) Sleep."
WANTED = [Turn(SEEKER, "I am tired."), Turn(SUPPORTER, "Since when?", B), Turn(SEEKER, "Weeks.")]
FORMS = {
    "conversational": {"prompt": HISTORY, "chosen": [helper(GOOD)], "rejected": [helper(BAD)]},
    "with an instruction": {
        "prompt": [{"role": "system", "content": "Help."}, *HISTORY],
        "chosen": [helper(GOOD)],
        "rejected": [helper(BAD)],
    },
    "without a prompt": {"chosen": [*HISTORY, helper(GOOD)], "rejected": [*HISTORY, helper(BAD)]},
    "the prompt in the sides": {"prompt": HISTORY, "chosen": [*HISTORY, helper(GOOD)], "rejected": [*HISTORY, helper(BAD)]},
    "a written out prompt": {"prompt": f"\n\n{TEXT}\n\nAssistant:", "chosen": f" {GOOD}", "rejected": f" {BAD}"},
    "written out without a prompt": {
        "chosen": f"\n\n{TEXT}\n\nAssistant: {GOOD}",
        "rejected": f"\n\n{TEXT}\n\nAssistant: {BAD}",
    },
    "JSON in cells": {
        "prompt": json.dumps(HISTORY),
        "chosen": json.dumps([helper(GOOD)]),
        "rejected": json.dumps([helper(BAD)]),
    },
    "labels of their own": {"prompt": HISTORY, "chosen": {"content": "You hold on.", "strategy": A}, "rejected": f"{BAD}"},
    "from and value": {
        "conversations": [
            {"from": "human", "value": "I am tired."},
            {"from": "gpt", "value": f"({B}) Since when?"},
            {"from": "human", "value": "Weeks."},
        ],
        "chosen": {"from": "gpt", "value": GOOD},
        "rejected": {"from": "gpt", "value": BAD},
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_pair_is_read(raw_file, form):
    corpus = read_escpro(raw_file([FORMS[form]]), EXTES)
    [dialogue] = corpus.dialogues
    assert dialogue.turns == (*WANTED, Turn(SUPPORTER, "You hold on.", A)) and not corpus.rejected
    assert corpus.negatives[dialogue.id][3] == (Turn(SUPPORTER, "Sleep.", B),)


def test_a_prompt_of_one_text_is_what_the_seeker_said(raw_file):
    corpus = read_escpro(raw_file([{"prompt": "I am tired.", "chosen": GOOD, "rejected": BAD}]), EXTES)
    assert corpus.dialogues[0].turns == (Turn(SEEKER, "I am tired."), Turn(SUPPORTER, "You hold on.", A))


def test_history_without_strategies_loses_no_pair_and_gives_none(raw_file):
    plain = {**FORMS["conversational"], "prompt": [user("I am tired."), helper("Since when?"), user("Weeks.")]}
    corpus = read_escpro(raw_file([plain]), EXTES)
    [row] = pair_rows(expanded_paths(corpus, corpus.dialogues), EXTES)
    assert row["prompt"][1:] == plain["prompt"] and row["chosen"] == [helper(GOOD)]


def test_our_own_pairs_give_the_same_pairs_again(tmp_path, raw_file):
    records = [
        FORMS["conversational"],
        {"prompt": HISTORY[:1], "chosen": [helper(f"({B}) Since when?")], "rejected": [helper(BAD)]},
        {"prompt": HISTORY[:1], "chosen": [helper(f"({B}) Since when?")], "rejected": [helper(GOOD)]},
        {"prompt": HISTORY[:1], "chosen": [helper(f"({A}) Oh.")], "rejected": [helper(BAD)]},
    ]
    corpus = read_escpro(raw_file(records), EXTES)
    rows = pair_rows(expanded_paths(corpus, corpus.dialogues), EXTES)
    assert len(rows) == 4 and str(corpus).splitlines()[0] == "4 of 4 records are usable: 2 dialogues (6 turns)"
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    again = read_escpro(tmp_path / "pairs.jsonl", EXTES)
    assert pair_rows(expanded_paths(again, again.dialogues), EXTES) == rows


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            {"prompt": "<|im_start|>user\nHi<|im_end|>", "chosen": GOOD, "rejected": BAD},
            "a prompt in which it is not clear who says what",
        ),
        ({"prompt": "Be kind.\nUser: Hi", "chosen": GOOD, "rejected": BAD}, "a prompt in which it is not clear who says what"),
        (
            {"prompt": HISTORY, "chosen": [helper(GOOD), user("Oh."), helper(GOOD)], "rejected": BAD},
            "a preferred or dispreferred side",
        ),
        ({"chosen": [*HISTORY, helper(GOOD)], "rejected": [user("Other."), helper(BAD)]}, "a preferred or dispreferred side"),
        ({"prompt": HISTORY[:2], "chosen": GOOD, "rejected": BAD}, "no seeker turn"),
        ({"prompt": HISTORY, "chosen": GOOD}, "no content"),
        ({"prompt": HISTORY, "chosen": "(Hypnosis) x", "rejected": BAD}, "a supporter turn with an unknown strategy"),
        ({"prompt": HISTORY, "chosen": "x", "rejected": BAD}, "a supporter turn without a strategy"),
        ({"prompt": HISTORY, "chosen": f"({A})", "rejected": BAD}, "a supporter turn with a strategy but without text"),
    ],
)
def test_a_pair_that_is_not_clear_is_left_out_for_one_reason(raw_file, record, reason):
    corpus = read_escpro(raw_file([FORMS["conversational"], record]), EXTES)
    [(found, ids)] = corpus.rejected.items()
    assert found.startswith(reason) and ids == ["escpro-pair-0001"] and len(corpus.dialogues) == 1


WORDS = st.sampled_from(
    ["", " ", "a", "so it is", f"({A}) b", "(Offer Hope (OH)) c", "(Hypnosis) d", "User: x", "<|end|>"]
) | st.text(max_size=6)
LABELS = st.sampled_from([A, B, "Others", "Hypnosis", "", None])
REPLY = (
    st.fixed_dictionaries({"content": WORDS}, optional={"strategy": LABELS, "role": st.sampled_from(["assistant", "user"])})
    | WORDS
    | st.none()
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "assistant", "system", "narrator"]), "content": WORDS},
    optional={"strategy": LABELS, "negative": st.lists(REPLY, max_size=3) | REPLY},
)
MESSAGES = st.lists(MESSAGE | REPLY, max_size=6)
NESTED = st.fixed_dictionaries({"messages": MESSAGES}) | st.none() | WORDS
PAIRS = st.fixed_dictionaries({"prompt": MESSAGES | WORDS, "chosen": MESSAGES | REPLY, "rejected": MESSAGES | REPLY}) | NESTED


@settings(max_examples=120, deadline=None)
@given(records=st.lists(NESTED, max_size=4) | st.lists(PAIRS, max_size=4))
def test_whatever_the_records_are_each_is_kept_or_counted_and_gives_rows_with_strategies(tmp_path_factory, records):
    path = tmp_path_factory.getbasetemp() / "fuzz-escpro.json"
    path.write_text(json.dumps(records))
    corpus = read_escpro(path, EXTES)
    account = corpus.rejects()
    assert (
        account["records"] == len(records) == account["usable"] + sum(entry["count"] for entry in account["rejected"].values())
    )
    for dialogue in corpus.dialogues:
        assert all(a.speaker != b.speaker for a, b in zip(dialogue.turns, dialogue.turns[1:], strict=False))
        assert all(turn.text and (turn.strategy is None or turn.strategy in EXTES.names) for turn in dialogue.turns)
        assert all(dialogue.turns[place].speaker == SUPPORTER for place in corpus.negatives[dialogue.id])
    for row in pair_rows(expanded_paths(corpus, corpus.dialogues), EXTES):
        assert (
            row["chosen_strategy"] in EXTES.names
            and row["rejected_strategy"] in EXTES.names
            and row["prompt"][-1]["role"] == "user"
        )
        assert row["chosen"] != row["rejected"]
