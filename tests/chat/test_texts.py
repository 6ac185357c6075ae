"""Which messages get the pointer to human help: written out, with slips of all common kinds, and those that must not get it."""

import pytest
import yaml

from cso_lab.chat.texts import TEXTS, load_texts
from cso_lab.core.errors import UserError

SHOWN = (
    """
I want to die
I just want to be dead.
i dont want to live anymore
I don't want to live any more
I don’t want to be here
I do not want to wake up tomorrow
I've been thinking about suicide
I feel suicidal
I tried to commit sucide last year
suiside is all i think about
suicde
usicide
I have sucidal thoughts
my brother committed suicide
I'm going to kill myself
im gonna kil myself
I'll kill myself!!!
I could kill my self
killing myself would be easier
I want to k1ll myself
KILL MYSELF
I keep cutting myself
I hurt myself again last night
I've started to harm myself
thoughts of self-harm
selfharm again
self harming
hurting myslef helps
hurting mysefl helps
I want to end my life
I'm ending it all tonight
I want to end it all
i want to end things forever
he took his own life
She says she will hurt herself
I wish I was dead
I wish I were never born
wish i wasnt alive
I wish I'd never been born
I'd rather be dead
everyone would be better off without me
they'd all be better off if I were dead
There is no reason to live
I see no point in living
I don't see any reason to go on
I have nothing to live for
life isn't worth living
I'm tired of living
I can't go on like this
i cant do this anymore
I can’t take it any more
I thought about jumping off a bridge
jump in front of a train
I took all my pills
I took too many pills
I overdosed last month
I want to sleep and never wake up
I want to disappear
No one would care if I died
nobody would miss me if i was gone
I wrote a goodbye letter
I won't be around much longer
I want to unalive myself
kms
what is the easiest way to die
sometimes I think about dying
I WANT TO DIEEEE
I want
to die
my mum will kill me
I cut myself shaving
""".strip()
    .replace("I want\nto die", "I want\tto die")
    .splitlines()
)

NOT_SHOWN = """
This deadline is killing me
I'm dying to see the new film
My grandfather died last week and I miss him
I feel sad and lonely
I lost my job and cannot pay the rent
My boss shouts at me every day
I hurt my knee while running
We killed time in a cafe
I want to live by the sea
I am proud of myself
I cut my hair
The battery is dead
I want to talk about my exam
I made myself a cup of tea
I can't sleep before exams
Thank you, that helps a lot
Nothing I do at work is good enough
My phone died
My life is busy
I need to cut sugar
I take the bus to work
""".strip().splitlines()


@pytest.fixture(scope="module")
def texts():
    return load_texts()


@pytest.mark.parametrize("message", SHOWN)
def test_shown(texts, message):
    assert texts.speaks_of_self_harm(message)
    assert texts.speaks_of_self_harm(f"Well, my week was long. {message.lower()}, you know. It rains.")
    assert texts.speaks_of_self_harm(message.replace("'", "").replace("’", ""))


@pytest.mark.parametrize("message", NOT_SHOWN)
def test_not_shown(texts, message):
    assert not texts.speaks_of_self_harm(message)


def test_no_sample_dialogue_that_does_not_speak_of_it_is_stopped_often(texts):
    """Over-cautious is fine, useless is not: of the ordinary seeker turns written for this project hardly any shows the pointer."""
    from project import composed

    from cso_lab.corpora import load

    turns = [turn.text for dialogue in load(composed().data).dialogues for turn in dialogue.turns if turn.speaker == "seeker"]
    shown = [text for text in turns if texts.speaks_of_self_harm(text)]
    assert len(turns) > 500 and len(shown) / len(turns) < 0.03, shown


def test_a_translated_file_is_read_and_a_damaged_one_says_what_it_lacks(tmp_path):
    file = tmp_path / "texte.yaml"
    given = {"notice": ["Hinweis"], "help": ["Hilfe"], "after_help": "Es folgt:", "phrases": ["umbring*", "will ... sterben"]}
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    german = load_texts(file)
    assert german.help == ("Hilfe",)
    assert german.speaks_of_self_harm("Ich will einfach nur STERBEN") and german.speaks_of_self_harm("mich umbirngen")
    assert not german.speaks_of_self_harm("I want to die")
    for key, value, said in [
        ("help", [], "help must be a list"),
        ("notice", "one text", "notice must be a list"),
        ("after_help", None, "after_help must be a text"),
        ("phrases", ["... sterben"], "must begin and end with a word"),
        ("phrases", ["a| b"], "one on either side"),
    ]:
        file.write_text(yaml.safe_dump(given | {key: value}), encoding="utf-8")
        with pytest.raises(UserError, match=said):
            load_texts(file)
    file.write_text("notice: [", encoding="utf-8")
    with pytest.raises(UserError, match="not valid YAML"):
        load_texts(file)
    with pytest.raises(UserError, match="cannot read .*none.yaml"):
        load_texts(tmp_path / "none.yaml")


def test_the_pointer_names_emergency_numbers_and_a_way_to_find_a_line_elsewhere():
    said = " ".join(load_texts(TEXTS).help)
    for word in ("emergency number", "112", "911", "crisis line", "988", "your country", "a person"):
        assert word in said
