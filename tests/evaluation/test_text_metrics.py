"""Text metrics against values worked out by hand, and on texts that have no words or no spaces."""

import math

import pytest
from project import composed

from cso_lab.core.errors import UserError
from cso_lab.evaluation.text_metrics import METRICS, bertscore, text_scores
from cso_lab.pipeline.cell_names import cell_name
from cso_lab.pipeline.preflight import preflight

GOLD, REPLY = "The cat sat on the mat.", "the cat, the cat"
BREVITY = math.exp(1 - 6 / 4)


def scores(metric: str, gold: str, *replies: str) -> dict[str, float]:
    return text_scores([metric], [gold] * len(replies), replies)


def test_bleu_clips_counts_and_takes_off_for_brevity():
    bleu = scores("bleu", GOLD, REPLY)
    assert list(bleu) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"]
    assert bleu["BLEU-1"] == pytest.approx(100 * BREVITY * 3 / 4)
    assert bleu["BLEU-2"] == pytest.approx(100 * BREVITY * math.sqrt(3 / 4 * 1 / 3))


def test_distinct_counts_over_all_replies():
    assert scores("distinct", "", "a b a", "b a") == pytest.approx({"distinct-1": 100 * 2 / 5, "distinct-2": 100 * 2 / 3})


def test_length_is_the_mean_number_of_words():
    assert scores("length", "", "I hear you.", "", "Yes, I do") == {"words": 2}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("reply", ["", "!?", "  "])
def test_a_reply_without_words_has_0(metric, reply):
    assert set(scores(metric, "Take care.", reply).values()) == {0}


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
@pytest.mark.parametrize("text", ["Take good care of yourself.", "你今天感觉怎么样？", "今日は大変でしたね。"])
def test_the_gold_reply_has_100_in_any_script(metric, text):
    assert list(scores(metric, text, text).values()) == pytest.approx([100] * (4 if metric == "bleu" else 1))


def test_characters_of_a_script_without_spaces_are_words():
    assert scores("distinct", "", "好好的") == pytest.approx({"distinct-1": 100 * 2 / 3, "distinct-2": 100})


def test_bertscore_is_that_of_its_package_and_an_empty_reply_has_0(tmp_path):
    bert_score = pytest.importorskip("bert_score")
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nbad\nday\n")
    BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt"), model_max_length=64).save_pretrained(tmp_path)
    torch.manual_seed(0)
    sizes = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 8}
    BertModel(BertConfig(**sizes)).save_pretrained(tmp_path)

    expected = bert_score.score(["good day"], ["bad day"], model_type=str(tmp_path), num_layers=2)[2].item()
    assert bertscore(["bad day", "good"], ["good day", " "], str(tmp_path), 2) == pytest.approx(100 * expected / 2)
    assert text_scores(["bertscore"], ["day"], ["day"], str(tmp_path), 2) == pytest.approx({"BERTScore": 100})
    with pytest.raises(UserError, match="evaluation.bertscore.model=.*cannot be used"):
        bertscore(["day"], ["day"], str(tmp_path / "nothing"), 2)


def test_what_bertscore_lacks_is_said_before_any_work(tmp_path):
    cfg = composed("algo=base", "evaluation.text=[bertscore]")
    with pytest.raises(UserError, match="needs evaluation.bertscore.model"):
        preflight([(cfg, tmp_path, ["evaluate"])])


def test_further_metrics_leave_a_cell_its_name():
    assert cell_name(composed("evaluation.text=[bleu,chrf]")) == cell_name(composed())
