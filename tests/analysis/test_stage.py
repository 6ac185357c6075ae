"""The stage inspect: what it leaves in a run folder, that nothing is done twice, and the report of a run without numbers."""

import csv
import json
import re
from xml.etree import ElementTree

import pytest
from project import composed, run_py
from rich.console import Console

from cso_lab.core.files import read_json
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.run_cell import run_stages
from cso_lab.reporting.dataset_tables import dataset_tables, print_inspection

ATTRIBUTES = ("TOXICITY", "SEVERE_TOXICITY", "IDENTITY_ATTACK", "INSULT", "PROFANITY", "THREAT")
A, B = "Affirmation", "Share Information"


def record(number: int, second: str, name: str = "story") -> dict:
    """A published dialogue of four utterances; `second` is what the supporter says last."""
    told = f"{name} {number} began on a monday in the rain and it was stupid"
    return {
        "scene": "Work",
        "description": f"{name} {number}",
        "messages": [
            {"role": "user", "content": told},
            {
                "role": "assistant",
                "strategy": A,
                "content": "You came here and that took some courage today",
                "negative": [{"strategy": B, "content": "Sleep is good for most people most of the time"}],
            },
            {"role": "user", "content": "I know."},
            {"role": "assistant", "strategy": B, "content": second, "negative": []},
        ],
    }


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs stages over four expanded dialogues; returns the run's folder."""
    monkeypatch.setattr("cso_lab.reporting.html.page.plotly_js", lambda: "")
    said = ["It helps many people to write such things down", "Short walks are known to lift the mood a little"]
    records = [record(number, said[number % 2]) for number in range(4)]
    (tmp_path / "escpro.json").write_text(json.dumps(records))

    def go(*stages: str, **choices: str):
        cfg = composed(
            f"stages=[{','.join(stages)}]",
            *("data=escpro", f"data.path={tmp_path}/escpro.json", "data.test_share=0.25", f"shared_dir={tmp_path}/shared"),
            *(f"{key}={value}" for key, value in choices.items()),
        )
        run_stages(CellContext(cfg, tmp_path / "run"))
        return tmp_path / "run"

    return go


def test_a_dataset_is_looked_at_and_reported_without_numbers(run, capsys):
    folder = run("dataset", "inspect", "report")
    found = read_json(folder / "inspection" / "inspection.json")
    # Three dialogues are left to train on: A is their second utterance of four (stage 3), B their last.
    assert found["progress"]["escpro"]["turns"] == [0, 0, 0, 3, 0, 3]
    assert found["progress"]["escpro"]["percent"][A] == [None, None, None, 100, None, 0]
    assert "seed" not in found["progress"] and found["notices"] == []
    # Each seeker opens with one weak insult and goes on with none.
    parts = found["toxicity"]["parts"]
    assert {part: scores["n"] for part, scores in parts.items()} == {
        "seeker": 6,
        "preferred": 6,
        "dispreferred": 3,
        "escpro": 15,
    }
    assert parts["seeker"]["means"]["INSULT"] == pytest.approx(0.06) and parts["preferred"]["means"]["INSULT"] == 0
    assert parts["escpro"]["means"]["INSULT"] == pytest.approx(0.12 * 3 / 15)
    utterances = found["duplicates"]["utterances"]
    # "I know." is too short; the supporter's first turn is the same in all, the second in two of each kind.
    assert utterances["within_train"]["left"]["of"] == 9 and utterances["within_test"] == {
        "pairs": 0,
        "left": {"concerned": 0, "of": 3},
        "examples": [],
    }
    assert utterances["train_test"]["right"]["concerned"] == 2
    assert found["pairs"] == {"along_paths": 3, "distinct": 3, "distinct_replies": 1}

    text = (folder / "inspection" / "inspection.md").read_text()
    assert "| utterances | – (paper 1,613) | 6 (paper 3,113, −3,107) |" in text
    assert "Toxicity was rated by a simulated judge, a short list of words, not by a language model." in text
    assert "| preferred | 6 | 0.0000 |" in text, "values of another scorer than the paper's stand alone"
    for name in ("figure3.png", "figure3.svg"):
        assert f"({name})" in text and (folder / "inspection" / name).exists()
    assert not (folder / "inspection" / "figure9.png").exists() and "figure9" not in text

    page = (folder / "report.html").read_text()
    assert re.findall(r'<section id="(.*?)">', page) == ["dataset", "cost", "runs"]
    for said in ("Table 5: statistics", "Figure 3: ESC-Pro", "Table 7: toxicity", "utterances, train against test"):
        assert said in page, said
    assert "(inspection/inspection.md)" in (folder / "report.md").read_text()
    assert list(csv.reader((folder / "report.csv").open()))[1:] == []
    assert f"report: {folder / 'report.html'}" in capsys.readouterr().out


def test_nothing_is_looked_at_twice_and_another_scorer_leaves_what_was_scored(run, tmp_path):
    def files() -> dict:
        return {
            path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*") if path.suffix in (".json", ".jsonl")
        }

    run("dataset", "inspect")
    before = files()
    (journal,) = (tmp_path / "shared" / "toxicity").rglob("calls.jsonl")
    scored = journal.read_bytes()
    run("inspect")
    assert files() == before
    folder = run("inspect", **{"toxicity": "none"})
    assert read_json(folder / "inspection" / "inspection.json")["toxicity"] is None
    assert "Table 7" not in (folder / "inspection" / "inspection.md").read_text()
    # A wider comparison is another look, but no text is scored again.
    run("inspect", **{"inspection.similarity": "0.5"})
    assert list((tmp_path / "shared" / "toxicity").rglob("calls.jsonl")) == [journal] and journal.read_bytes() == scored


def test_without_a_dataset_it_says_which_command_makes_it(run):
    with pytest.raises(Exception, match=r"no preference data for this configuration; make them with: .*stages=\[dataset\]"):
        run("inspect")


def test_the_papers_values_stand_beside_those_of_its_own_scorer(tmp_path):
    scores = {"n": 2, "means": dict.fromkeys(ATTRIBUTES, 0.02)}
    found = {
        "toxicity": {
            "scorer": "Perspective API",
            "version": "v1alpha1",
            "notice": None,
            "refused": 1,
            "parts": {"seed": scores},
        }
    }
    (table,) = dataset_tables({}, found, "d")
    assert table.rows[0][2].paper == "0.0227" and table.rows[0][2].difference == "−0.0027"
    assert "1 distinct utterances were refused" in table.caption
    console = Console(record=True, width=200, file=open("/dev/null", "w"))
    print_inspection(tmp_path / "inspection.md", {}, found, "d", console)
    ours, beside = (line for line in console.export_text().splitlines() if "0.0200" in line or "0.0227" in line)
    assert ours.split("│")[3].strip() == "0.0200" and beside.split("│")[3].strip() == "paper 0.0227, −0.0027"


@pytest.mark.long
def test_the_documented_command_ends_with_a_report(tmp_path):
    line = [
        *("stages=[search,dataset,inspect,report]", "data.seed_dialogues=2", "mcts.min_iterations=3", "mcts.max_iterations=3"),
        *("backbone=tiny_llama", f"hydra.run.dir={tmp_path}/run", f"shared_dir={tmp_path}/shared"),
    ]
    done = run_py(*line, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == f"report: {tmp_path}/run/report.html"
    found = read_json(tmp_path / "run" / "inspection" / "inspection.json")
    assert found["notices"] == ["searched with simulated role players, not with language models"]
    assert list(found["toxicity"]["parts"]) == [
        *("seed_seeker", "seed_supporter", "seed", "seeker", "preferred", "dispreferred", "escpro")
    ]
    for figure, title in (("figure3", "Figure 3: ESC-Pro"), ("figure9", "Figure 9: the seed")):
        svg = (tmp_path / "run" / "inspection" / f"{figure}.svg").read_text()
        assert ElementTree.fromstring(svg).tag.endswith("svg") and title in svg and "Emotional Validation" in svg
        assert ("simulated" in svg) == (figure == "figure3")
        assert (tmp_path / "run" / "inspection" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    again = run_py("stages=[report]", f"report.folder={tmp_path}/run", timeout=600)
    assert again.returncode == 0 and again.stdout.splitlines()[-1] == f"report: {tmp_path}/run/report.html"
