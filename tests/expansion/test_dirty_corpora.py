"""Dirty corpora, from the file to the trees: nothing ends in a traceback, and every record is accounted for."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from project import composed

from cso_lab.core.files import read_json
from cso_lab.core.strategies import strategy_set
from cso_lab.corpora import load, seeds, split
from cso_lab.expansion.expand import expand, tree_files

EXAMPLES = 12
SMALL = ("mcts=paper", "mcts.min_iterations=1", "mcts.max_iterations=1", "mcts.rollout_rounds=1")
LABELS = {
    "extes": ["Affirmation", "offer HOPE (OH)", "Others", "?", None],
    "esconv": ["Questions [Q]", "Information", "other", "?", None],
}
# Words that a prompt, a transcript or a file name might stumble over.
WORDS = st.sampled_from(
    [
        "I am tired.",
        "{dialogue}",
        "{",
        "</end/>",
        "Supporter (Affirmation): no",
        "a\nSeeker: b",
        "\ud800",
        "\x00",
        "../x",
        "",
        None,
    ]
) | st.text(max_size=12)


def extes(turns: list, setting) -> dict:
    return {"scene": setting, "content": [{"AI": w, "AI Strategy": s} if by else {"User": w} for by, w, s in turns]}


def esconv(turns: list, setting) -> dict:
    entries = [{"speaker": ("speaker", "listener")[by], "content": w, "annotation": {"strategy": s}} for by, w, s in turns]
    return {"situation": setting, "dialog": entries}


RECORD = {"extes": extes, "esconv": esconv}


def files(data: str):
    """Lists of raw records: a dialogue in strange words first, something that is no record last, and anything between."""
    words, names = WORDS.map(lambda text: f"Well, {text}"), st.sampled_from(LABELS[data][:2])
    exchange = st.tuples(st.tuples(st.just(0), words, st.none()), st.tuples(st.just(1), words, names))
    sound = st.lists(exchange, min_size=2, max_size=4).map(lambda exchanges: [turn for pair in exchanges for turn in pair])
    anything = st.lists(st.tuples(st.sampled_from([0, 1]), WORDS, st.sampled_from(LABELS[data])), max_size=7)
    between = st.lists(st.builds(RECORD[data], sound | anything, WORDS), max_size=3)
    return st.tuples(st.builds(RECORD[data], sound, WORDS), between).map(lambda parts: [parts[0], *parts[1], "no record"])


@pytest.mark.long
@pytest.mark.parametrize("data", list(LABELS))
def test_every_record_becomes_a_tree_or_is_named_with_its_reason(data, tmp_path_factory):
    counts = {"trees": 0, "rejected": 0}

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(records=files(data))
    def whole(records):
        folder = tmp_path_factory.mktemp("dirty")
        file = folder / "raw.json"
        file.write_text(json.dumps(records))
        cfg = composed(f"data={data}", f"data.path={file}", "data.test_share=0", *SMALL)
        corpus = load(cfg.data)
        train, test = split(corpus.dialogues, cfg.data.test_share)
        dialogues = seeds(train, cfg.data.seed_dialogues)
        rejects = corpus.rejects()
        summary = expand(
            dialogues,
            mcts=OmegaConf.to_container(cfg.mcts, resolve=True),
            roles=OmegaConf.to_container(cfg.roles, resolve=True),
            strategies=strategy_set(cfg.data.strategies),
            folder=folder,
            corpus_report=rejects,
            theta=cfg.preferences.theta,
            min_end_visits=cfg.preferences.min_end_visits,
        )
        grown = [path.stem for path in tree_files(folder)]
        left_out = [name for entry in rejects["rejected"].values() for name in entry["ids"]]
        assert sorted([*grown, *summary["set_aside"], *left_out]) == [f"{data}-{i:04d}" for i in range(len(records))]
        assert not test and read_json(folder / "search.json")["corpus"] == rejects
        counts["trees"] += len(grown)
        counts["rejected"] += len(left_out)

    whole()
    assert counts["trees"] >= EXAMPLES <= counts["rejected"]
