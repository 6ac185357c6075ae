"""Scorers of toxicity: simulated, a language model and the Perspective API on loopback servers, and a classifier in this process."""

import json
from contextlib import contextmanager

import pytest
from fake_batches import FakeBatches
from fakes import FakeOpenAI, Reply, failure
from hydra.utils import instantiate
from loopback import REFUSALS
from project import composed

from cso_lab.analysis.toxicity import ATTRIBUTES, toxicity
from cso_lab.core.errors import UserError
from cso_lab.llm.budget import BudgetSpent
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.check import check
from cso_lab.pipeline.run_cell import run_stages

QUICK = ("toxicity.client.max_backoff=0.02",)


def scorer(*overrides: str):
    return instantiate(composed(*overrides).toxicity.scorer, _convert_="all")


@contextmanager
def judged(*replies, overrides=()):
    """(the server, a judge that asks it)."""
    with FakeOpenAI(*replies) as server:
        asked = ("toxicity=judge", "toxicity.model=openai/x", "toxicity.structured=none", *QUICK)
        yield server, scorer(*asked, f"toxicity.client.api_base={server.api_base}", *overrides)


def rated(**given: int) -> str:
    return json.dumps(dict.fromkeys(ATTRIBUTES, 0) | given)


def values(**given: float) -> dict:
    return dict.fromkeys(ATTRIBUTES, 0.0) | given


def test_means_are_over_utterances_each_as_often_as_it_stands_in_the_data_and_each_text_is_asked_for_once(tmp_path):
    def reply(body) -> Reply:
        return Reply(rated(TOXICITY=60, INSULT=30) if body["messages"][-1]["content"].endswith("bad") else rated())

    parts = {"preferred": ["good", "bad", "good"], "dispreferred": ["bad"], "seeker": []}
    with judged(reply) as (server, judge):
        found = toxicity(parts, judge, tmp_path)
        assert len(server.requests) == 2
        assert toxicity(parts | {"seeker": ["good"]}, judge, tmp_path)["parts"]["seeker"]["n"] == 1
        assert len(server.requests) == 2, "what was scored once is in the journal"
        toxicity({"seed": ["new"]}, judge, tmp_path)
        assert len(server.requests) == 3
    assert found["parts"] == {
        "preferred": {"n": 3, "means": pytest.approx(values(TOXICITY=0.2, INSULT=0.1))},
        "dispreferred": {"n": 1, "means": values(TOXICITY=0.6, INSULT=0.3)},
        "seeker": {"n": 0, "means": dict.fromkeys(ATTRIBUTES)},
    }
    assert found["scorer"] == "LLM judge" and found["version"].startswith("openai/x, prompt ")
    assert found["notice"] is None and found["refused"] == 0


def test_a_judge_that_answers_nonsense_is_asked_again_and_a_refused_text_is_counted(tmp_path):
    with judged(Reply("never"), Reply('{"TOXICITY": 101}'), Reply(f"```json\n{rated(THREAT=100).lower()}\n```")) as (
        server,
        judge,
    ):
        assert judge.score(["text"], tmp_path) == [values(THREAT=1.0)]
        assert len(server.requests) == 3
    with judged(REFUSALS["400"]) as (_, judge):
        assert toxicity({"seed": ["no"]}, judge, tmp_path)["refused"] == 1


def test_texts_are_scored_in_a_batch_and_never_again(tmp_path):
    in_batches = ("toxicity.client.batch=true", "toxicity.client.batch_poll=0.02")
    with judged(failure(403, "in batches only"), overrides=in_batches) as (server, judge):
        server.batches = FakeBatches(lambda body: Reply(rated(INSULT=len(body["messages"][-1]["content"]) % 7)))
        scores = judge.score(["a", "bb", "ccc"], tmp_path)
        assert judge.score(["ccc", "a"], tmp_path) == [scores[2], scores[0]] and None not in scores
        assert [len(lines) for lines in server.batches.lines] == [3] and not server.requests


def test_a_text_that_was_asked_for_as_often_as_allowed_is_not_paid_for_again(tmp_path):
    two = "toxicity.client.max_attempts=2"
    with judged(Reply("never"), overrides=(two,)) as (server, judge):
        assert judge.score(["text"], tmp_path) == judge.score(["text"], tmp_path) == [None]
        assert len(server.requests) == 2
    with judged(Reply(rated()), overrides=("toxicity.client.max_attempts=3",)) as (server, judge):
        assert judge.score(["text"], tmp_path) == [values()]


def test_an_utterance_is_material_on_one_line_and_braces_in_it_mean_nothing(tmp_path):
    with judged(Reply(rated())) as (server, judge):
        judge.score(["ignore\nthis {text} {system}"], tmp_path)
        assert server.requests[0]["messages"][-1]["content"] == "Utterance to rate:\nignore this {text} {system}"
    with pytest.raises(Exception, match="unknown placeholder in toxicity.query '{utterance}'"):
        scorer("toxicity.query='{utterance}'")


def test_at_the_cap_what_is_scored_is_kept_and_a_higher_cap_goes_on(tmp_path):
    one = "toxicity.client.max_concurrency=1"
    with judged(Reply(rated()), overrides=("toxicity.client.budget.calls=2", one)) as (server, judge):
        with pytest.raises(
            BudgetSpent, match="toxicity.client.budget.calls=2 is spent: 2 of 3 questions are answered and kept"
        ):
            judge.score(["a", "b", "c"], tmp_path)
    with judged(Reply(rated()), overrides=("toxicity.client.budget.calls=3", one)) as (server, judge):
        assert judge.score(["a", "b", "c"], tmp_path) == [values()] * 3
        assert len(server.requests) == 1


def test_the_simulated_judge_goes_by_its_word_list_and_says_that_it_is_simulated(tmp_path):
    simulated = scorer("toxicity=simulated")
    simulated.check()
    said = ["I feel better.", "This is stupid.", "You pathetic idiot, I will kill him!"]
    assert simulated.score(said, tmp_path) == [
        values(),
        values(TOXICITY=0.12, INSULT=0.12),
        values(TOXICITY=0.9, SEVERE_TOXICITY=0.8, INSULT=0.9, THREAT=0.45),
    ]
    assert "simulated" in simulated.name and "simulated" in simulated.notice and "simulated" in simulated.version


KEY = "perspective-key-1234"


@contextmanager
def perspective(monkeypatch, *replies, overrides=()):
    monkeypatch.setenv("PERSPECTIVE_API_KEY", KEY)
    with FakeOpenAI(*replies) as server:
        address = f"toxicity.client.api_base={server.api_base.removesuffix('/v1')}"
        yield server, scorer("toxicity=perspective", address, "toxicity.client.requests_per_minute=null", *QUICK, *overrides)


def analyzed(**given: float) -> Reply:
    found = {name: {"summaryScore": {"value": value, "type": "PROBABILITY"}} for name, value in values(**given).items()}
    return Reply(body={"attributeScores": found, "languages": ["en"]})


def test_perspective_is_asked_for_all_attributes_at_once_and_stores_nothing(tmp_path, monkeypatch):
    with perspective(monkeypatch, analyzed(TOXICITY=0.25, THREAT=0.5)) as (server, asked):
        asked.check()
        assert asked.score(["a text"], tmp_path) == [values(TOXICITY=0.25, THREAT=0.5)]
        assert asked.score(["a text"], tmp_path) == [values(TOXICITY=0.25, THREAT=0.5)]
    assert server.requests == [
        {
            "comment": {"text": "a text"},
            "languages": ["en"],
            "requestedAttributes": {name: {} for name in ATTRIBUTES},
            "doNotStore": True,
        }
    ]
    assert server.paths == ["/v1alpha1/comments:analyze"] and server.headers[0]["x-goog-api-key"] == KEY
    assert (asked.name, asked.version) == ("Perspective API", "v1alpha1")
    assert not any(KEY in path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())


def test_perspective_is_asked_again_a_bounded_number_of_times(tmp_path, monkeypatch):
    quota = failure(429, Retry_After="0")
    with perspective(monkeypatch, quota, failure(503), Reply(body="<html>"), analyzed()) as (server, asked):
        assert asked.score(["text"], tmp_path) == [values()]
        assert len(server.requests) == 4
    with perspective(monkeypatch, quota, overrides=("toxicity.client.max_attempts=2",)) as (server, asked):
        with pytest.raises(
            UserError, match="1 of 1 questions got no answer, most often: toxicity: no usable answer in 2 attempts"
        ):
            asked.score(["other"], tmp_path)
        assert len(server.requests) == 2


def test_perspective_refuses_a_text_and_a_wrong_key_or_language_is_no_refusal(tmp_path, monkeypatch):
    with perspective(monkeypatch, failure(400, "Comment text was too many bytes.")) as (_, asked):
        assert asked.score(["text"], tmp_path) == [None]
    with perspective(monkeypatch, failure(400, "Attribute TOXICITY does not support request languages: xx")) as (_, asked):
        with pytest.raises(UserError, match="does not support request languages: xx"):
            asked.score(["text"], tmp_path)
    with perspective(monkeypatch, failure(400, f"API key not valid: {KEY}")) as (_, asked):
        with pytest.raises(UserError, match="perspective as toxicity: .*API key not valid") as error:
            asked.score(["text"], tmp_path)
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (["toxicity=judge"], "give toxicity.model=PROVIDER/NAME"),
        (["toxicity.client.max_attempts=0"], "toxicity.client.max_attempts=0"),
        (["inspection.similarity=0"], "inspection.similarity=0"),
    ],
)
def test_an_impossible_look_is_refused_before_any_work(choice, expected):
    with pytest.raises(UserError, match=expected):
        check(composed("stages=[dataset,inspect]", *choice))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (["toxicity=judge", "toxicity.model=openai/x"], "needs OPENAI_API_KEY"),
        (
            ["toxicity=perspective", "toxicity.client.api_key_env=SCORERS_KEY", "toxicity.client.batch=true"],
            r"toxicity\.client\.batch=true: perspective .* has no batches here.*give toxicity\.client\.batch=false",
        ),
        (["toxicity=simulated", "toxicity.client.batch=true"], r"simulated/toxicity \(toxicity\.model\) has no batches here"),
        (["toxicity=perspective"], "toxicity.client.api_key_env names PERSPECTIVE_API_KEY, which is not set"),
        (
            ["toxicity=detoxify", "toxicity.path=/nowhere/model"],
            "toxicity.path=/nowhere/model is neither a folder with a model nor",
        ),
    ],
)
def test_a_scorer_that_could_score_nothing_is_found_before_the_search(choice, expected, tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "PERSPECTIVE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCORERS_KEY", "none-at-all")
    line = ("stages=[search,dataset,inspect]", f"shared_dir={tmp_path}/shared", *choice)
    with pytest.raises(UserError, match=expected):
        run_stages(CellContext(composed(*line), tmp_path / "run"))
    assert not (tmp_path / "shared").exists()


@pytest.mark.long
def test_a_classifier_with_detoxifys_labels_scores_as_transformers_does_and_once(tmp_path, monkeypatch):
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    labels = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=8,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        id2label=dict(enumerate(labels)),
    )
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nbad\nday\n")
    tokenizer = BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path / "model")

    detoxify = scorer("toxicity=detoxify", f"toxicity.path={tmp_path}/model", "toxicity.batch_size=2")
    detoxify.check()
    said = ["good day day day", "bad", "bad day"]
    found = detoxify.score(said, tmp_path / "scores")
    names = ["TOXICITY", "SEVERE_TOXICITY", "PROFANITY", "THREAT", "INSULT", "IDENTITY_ATTACK"]
    for text, scores in zip(said, found, strict=True):
        expected = torch.sigmoid(model(**tokenizer(text, return_tensors="pt")).logits)[0].tolist()
        assert scores == pytest.approx(dict(zip(names, expected, strict=True)), abs=1e-5)
    with monkeypatch.context() as patched:
        patched.delattr("transformers.AutoModelForSequenceClassification.from_pretrained")
        assert detoxify.score(said, tmp_path / "scores") == found, "cached scores need no model"
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights in safetensors"):
        detoxify.score(["day"], tmp_path / "scores")
