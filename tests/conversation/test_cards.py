"""Who the seekers are: the same in every cell, however many there are, from the test dialogues or a file."""

import json
from collections import Counter

import pytest
from conversations import PERSONAS

from cso_lab.conversation.cards import draw_cards, of_dialogues, read_situations
from cso_lab.core.errors import UserError
from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, Turn

SETTINGS = {"seekers": 30, "seed": 0, "personas": list(PERSONAS), "weakest": 6, "strongest": 9}
DIALOGUES = [
    Dialogue(
        f"d{n}", f"scene {n % 2}", f"situation {n}", (Turn(SUPPORTER, "Hi."), Turn(SEEKER, f"a{n}"), Turn(SEEKER, f"b{n}"))
    )
    for n in range(6)
]
CARD = {"scene": "Loss", "description": "My dog died.", "utterances": ["He is gone."]}


def test_a_card_has_the_situation_and_the_seekers_own_turns():
    (situation, *_) = of_dialogues(DIALOGUES)
    assert (situation.id, situation.scene, situation.description) == ("d0", "scene 0", "situation 0")
    assert situation.utterances == ("a0", "b0")


def test_seeker_n_is_the_same_one_however_many_there_are():
    few, many = (draw_cards(SETTINGS | {"seekers": count}, of_dialogues(DIALOGUES)) for count in (8, 30))
    assert many[:8] == few
    assert draw_cards(SETTINGS | {"seed": 1}, of_dialogues(DIALOGUES)) != many


def test_situations_and_personas_are_drawn_equally_often_and_not_in_step():
    cards = draw_cards(SETTINGS, of_dialogues(DIALOGUES))
    assert set(Counter(card.id for card in cards).values()) == set(Counter(card.persona for card in cards).values()) == {5}
    assert len({(card.id, card.persona) for card in cards}) > 12
    assert {card.intensity for card in cards} == {6.0, 7.0, 8.0, 9.0}


@pytest.mark.parametrize("name", ["cards.json", "cards.jsonl"])
def test_a_file_may_say_everything_or_leave_it_to_be_drawn(name, tmp_path):
    rows = [CARD, CARD | {"id": "mine", "persona": "guarded", "intensity": 7.5}]
    text = json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows))
    (tmp_path / name).write_text(text, encoding="utf-8")
    situations = read_situations(tmp_path / name, PERSONAS, 4)
    assert [situation.id for situation in situations] == ["1", "mine"]
    mine = [card for card in draw_cards(SETTINGS, situations) if card.id == "mine"]
    assert len(mine) == 15 and {(card.persona, card.intensity) for card in mine} == {("guarded", 7.5)}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"scene": "x"}, "card 1: description is null: expected a text"),
        (CARD | {"utterances": []}, "card 1: utterances: expected a list of texts"),
        (CARD | {"persona": "gaurded"}, "card 1: unknown persona 'gaurded': did you mean 'guarded'"),
        (CARD | {"intensity": 4}, "card 1: intensity is 4: expected a number above conversation.threshold=4, at most 10"),
        (CARD | {"mood": 4}, "card 1: unknown key 'mood'"),
        ("x", "card 1: scene is null"),
    ],
)
def test_a_card_that_cannot_be_played_is_named(row, said, tmp_path):
    (tmp_path / "cards.json").write_text(json.dumps([row]), encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_situations(tmp_path / "cards.json", PERSONAS, 4)
    assert said in str(error.value)
