"""Words of any script: English as rouge_score splits it, other scripts by their own words or characters."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cso_lab.core.words import count_words, words
from cso_lab.evaluation.metrics import rouge_l_scores

# What English text is made of: ASCII, and the marks and emoji that people and models put beside it.
PARTS = [*map(chr, range(32, 127)), *"‘’“”—–…•™€²½\n\t\u00a0", "❤️", "🙂", "1️⃣"]
ENGLISH = st.lists(st.sampled_from(PARTS), max_size=40).map("".join)


@settings(deadline=None)
@given(ENGLISH)
@example("Don't worry — it’s OK :) ❤️ 1️⃣ x² a_b")
def test_english_words_are_those_of_rouge_score(text):
    from rouge_score.tokenize import tokenize

    assert words(text) == tokenize(text, None)


@settings(deadline=None)
@given(ENGLISH, ENGLISH)
@example("I am so sorry, that's hard.", "That is so hard!")
def test_rouge_l_of_english_is_unchanged_to_the_digit(gold, predicted):
    from rouge_score.rouge_scorer import RougeScorer

    expected = RougeScorer(["rougeL"], use_stemmer=False).score(gold, predicted)["rougeL"].fmeasure
    assert rouge_l_scores([gold], [predicted])[0] == 100 * expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Привет, мир!", ["привет", "мир"]),
        ("我用Python3，你好。", ["我", "用", "python3", "你", "好"]),
        ("コーヒーとお茶", ["コ", "ー", "ヒ", "ー", "と", "お", "茶"]),
        ("ขอบคุณ", ["ข", "อ", "บ", "คุ", "ณ"]),
        ("मैं जीना चाहता हूँ।", ["मैं", "जीना", "चाहता", "हूँ"]),
        ("안녕하세요, 세계", ["안녕하세요", "세계"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("naïve Café", ["naïve", "café"]),
        ("nai\u0308ve", ["naïve"]),
        ("¡¿…?!", []),
    ],
)
def test_other_scripts_have_words_too(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize("text", ["你今天感觉怎么样？", "Как ты себя чувствуешь?", "ขอบคุณมาก", "つらいですね", "आप कैसे हैं?"])
def test_equal_texts_score_100_and_others_by_what_they_share(text):
    assert rouge_l_scores([text], [text])[0] == pytest.approx(100)
    assert rouge_l_scores([text], ["♥"])[0] == 0
    assert rouge_l_scores(["我很难过"], ["我很高兴"])[0] == pytest.approx(50)


def test_lengths_count_what_stands_between_spaces_or_characters_where_there_are_none():
    english = "Well - I don't know,  it's (really) hard."
    assert count_words(english) == len(english.split())
    assert count_words("你好，世界！ hello") == 5
    assert count_words("Привет, мир!") == 2
    assert count_words("") == 0


def test_near_duplicates_and_short_texts_are_found_in_any_script():
    from cso_lab.analysis.duplicates import Text, long_enough, within

    said = [Text("a", "我今天真的很难过。"), Text("b", "我今天真的很难受！"), Text("c", "谢谢你")]
    assert within(said, 3, 0.6)["pairs"] == 1
    assert [text.name for text in long_enough(said, 5)] == ["a", "b"]
    hindi = [Text("a", "मैं जीना नहीं चाहता"), Text("b", "मैं जाना नहीं चाहता")]
    assert within(hindi, 1, 0.7)["pairs"] == 0


def test_mean_lengths_of_a_dataset_count_characters_of_scripts_without_spaces():
    from cso_lab.core.records import SEEKER, Dialogue, Turn
    from cso_lab.preferences.statistics import table5

    seed = [Dialogue("1", "", "", (Turn(SEEKER, "我很难过"), Turn(SEEKER, "So am I, and more")))]
    assert table5(seed, [])["seed"]["mean_utterance_words"] == 4.5


def test_a_translated_phrase_is_noticed_in_a_sentence_without_spaces(tmp_path):
    import yaml

    from cso_lab.chat.texts import load_texts

    file = tmp_path / "texts.yaml"
    given = {
        "notice": ["-"],
        "help": ["-"],
        "after_help": "",
        "phrases": ["想死", "不想 ... 活着|活", "मरना चाहता*", "自杀|自残"],
    }
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    texts = load_texts(file)
    for message in ("我真的想死了。", "我不想再这样活着", "मैं मरना चाहता हूँ", "他昨天自残"):
        assert texts.speaks_of_self_harm(message), message
    for message in ("我想喝茶", "मैं माना चाहता हूँ", "他很自信"):
        assert not texts.speaks_of_self_harm(message), message
