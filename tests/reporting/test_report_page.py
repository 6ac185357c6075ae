"""report.html of runs: what its data say of runs made by hand, and that neither texts nor damage break it."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from reporting.run_folders import NAMES, dialogues_of, write_run, write_sweep
from reporting.trees import HOSTILE, NOTICE, hand_made, write_search

from cso_lab.core.files import read_json, write_json, write_jsonl
from cso_lab.core.records import Dialogue, Turn
from cso_lab.core.tables import Value
from cso_lab.reporting.html.charts import chart_label, wrapped_label
from cso_lab.reporting.html.page import write_report_page
from cso_lab.reporting.html.report_data import ReportData, first_of_each_kind, run_folders
from cso_lab.reporting.html.strategies import confusion_counts


@pytest.fixture(autouse=True)
def without_the_library(monkeypatch):
    """The chart library only makes these pages slow to search; the browser's tests have it."""
    monkeypatch.setattr("cso_lab.reporting.html.page.plotly_js", lambda: "")


def page_of(folders, out, **options) -> str:
    return write_report_page(folders, out, "A sweep", **options).read_text(encoding="utf-8")


def data_of(page: str, id: str) -> object:
    (text,) = re.findall(rf'<script type="application/json" id="{id}">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def figures_of(page: str, id: str) -> list:
    (text,) = re.findall(rf'<figure class="chart" id="{id}">.*?<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def sections_of(page: str) -> list[str]:
    return re.findall(r'<section id="(.*?)">', page)


def test_a_sweep_has_every_section_and_the_notices_stand_on_top(tmp_path):
    search = write_search(tmp_path / "shared" / "search" / "abc", hand_made())
    folders = write_sweep(tmp_path / "sweep", 4, search, turns=20, context={"roles_notice": NOTICE})
    page = page_of(folders, tmp_path / "sweep")
    assert sections_of(page) == [
        "results",
        "preferences",
        "confusion",
        "training",
        "turns",
        "dialogue",
        "trees",
        "cost",
        "runs",
    ]
    head = page[: page.index("<main>")]
    for said in (
        "Searched with simulated role players, not with language models.",
        "Not measured in the paper, so not to be compared with its numbers: SmolLM2-135M-Instruct.",
        "Replies were constrained to open with a strategy",
    ):
        assert said in head


def test_a_cell_of_the_paper_has_its_value_and_the_difference_and_another_model_has_none(tmp_path):
    folders = [
        write_run(tmp_path / "llama", dialogues_of(20), backbone="llama", algo="dpo"),
        write_run(tmp_path / "small", dialogues_of(20), backbone="smollm2", algo="dpo"),
    ]
    q = read_json(folders[0] / "metrics.json")["Q"]
    page = page_of(folders, tmp_path, table="9")
    rows = [re.sub(r"\s+", " ", re.sub(r"<.*?>", " ", row)) for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)]
    ours, foreign = (next(row for row in rows[1:] if name in row) for name in ("LLaMA-3.1-8B-Instruct", "SmolLM2"))
    # Table 9, LLaMA, LoRA, DPO: Q 34.51 and R-L 23.89; ours has R-L 15.5, which is 8.39 less.
    assert f"paper 34.51 {q - 34.51:+.2f}".replace("-", "\u2212") in ours and "paper 23.89 \u22128.39" in ours
    assert "paper" not in foreign


def test_the_confusion_counts_gold_by_predicted_and_unparsed_last():
    predictions = [
        {"gold_strategy": "A", "strategy": "A"},
        {"gold_strategy": "A", "strategy": "B"},
        {"gold_strategy": "B", "strategy": None},
        {"gold_strategy": "B", "strategy": "unheard of"},
        {"gold_strategy": "unheard of", "strategy": "A"},
    ]
    assert confusion_counts(predictions, ["A", "B"]).tolist() == [[1, 1, 0], [0, 0, 2]]


def test_turns_stand_side_by_side_with_what_was_said_before(tmp_path):
    said = (
        Turn("seeker", "I lost it."),
        Turn("supporter", "Oh no.", NAMES[0]),
        Turn("seeker", "Yes."),
        Turn("supporter", "And?", NAMES[1]),
    )
    folders = [write_run(tmp_path / algo, [Dialogue("d-1", "Work", "Lost.", said)], algo=algo) for algo in ("base", "sft")]
    write_jsonl(
        folders[1] / "predictions.jsonl",
        [
            {
                "dialogue": "d-1",
                "turn": 3,
                "gold_strategy": NAMES[1],
                "gold_response": "And?",
                "strategy": None,
                "response": "hm",
            }
        ],
    )
    data = data_of(page_of(folders, tmp_path), "turn-data")
    assert data["dialogues"] == [
        {"id": "d-1", "scene": "Work", "description": "Lost.", "whole": True}
        | {
            "turns": [
                [0, "seeker", None, "I lost it."],
                [1, "supporter", 0, "Oh no."],
                [2, "seeker", None, "Yes."],
                [3, "supporter", 1, "And?"],
            ]
        }
    ]
    assert data["turns"] == [[0, 1, 0, "Oh no."], [0, 3, 1, "And?"]]
    assert [cell["name"] for cell in data["cells"]] == ["base", "LoRA, SFT"]
    assert data["replies"][1] == [None, [-1, "hm"]]
    # Without an answer, what the model wrote is shown, and its reasoning is not.
    for raw, shown in ((f"({NAMES[0]})", f"({NAMES[0]})"), ("<think>Hm. What", "")):
        prediction = {
            "dialogue": "d-1",
            "turn": 3,
            "gold_strategy": NAMES[1],
            "gold_response": "And?",
            "response": "",
            "raw": raw,
        }
        write_jsonl(folders[1] / "predictions.jsonl", [prediction])
        assert data_of(page_of(folders, tmp_path), "turn-data")["replies"][1][1][1] == shown


def test_an_emotion_in_the_data_stands_beside_its_utterance(tmp_path):
    folder = write_run(tmp_path / "run", dialogues_of(1))
    (dialogue,) = [json.loads(line) for line in (folder / "test_dialogues.jsonl").read_text().splitlines()]
    dialogue["turns"][0]["emotion"] = "Sadness"
    write_jsonl(folder / "test_dialogues.jsonl", [dialogue])
    data = data_of(page_of([folder], tmp_path), "turn-data")
    assert [turn[4:] for turn in data["dialogues"][0]["turns"]] == [["Sadness"], []]


def test_without_its_dialogues_a_run_shows_what_the_predictions_tell(tmp_path):
    folder = write_run(tmp_path / "run", dialogues_of(3))
    (folder / "test_dialogues.jsonl").unlink()
    page = page_of([folder], tmp_path)
    assert "of their history only the supporter" in page
    assert [turn[:2] for turn in data_of(page, "turn-data")["dialogues"][0]["turns"]] == [
        [1, "supporter"],
        [3, "supporter"],
        [5, "supporter"],
    ]


def test_a_whole_dialogue_is_the_valid_path_with_scores_and_sources(tmp_path):
    search = write_search(tmp_path / "search", hand_made())
    folder = write_run(tmp_path / "run", dialogues_of(1), search=search)
    (found,) = data_of(page_of([folder], tmp_path), "dialogue-data")
    assert found["notice"] == NOTICE
    assert found["turns"][:2] == [
        ["seeker", None, "k-0", "corpus", None, None],
        ["supporter", "A", "s-A1", "corpus", 1.0, None],
    ]


def test_runs_copied_without_their_searches_say_so_and_together_with_them_find_them(tmp_path):
    search = write_search(tmp_path / "old" / "shared" / "search" / "abc", hand_made())
    folder = write_run(tmp_path / "old" / "runs" / "run", dialogues_of(1), search=search)
    shutil.copytree(folder, tmp_path / "alone" / "run")
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    shutil.rmtree(tmp_path / "old")
    alone = page_of([tmp_path / "alone" / "run"], tmp_path / "alone")
    assert "trees" not in sections_of(alone) and "results" in sections_of(alone)
    assert "1 file or folder could not be read" in alone and "the search of run is not on this machine" in alone
    whole = page_of([tmp_path / "new" / "runs" / "run"], tmp_path / "new")
    assert "trees" in sections_of(whole) and "could not be read" not in whole


@pytest.mark.parametrize(
    "file",
    ["predictions.jsonl", "train_log.jsonl", "run.json", "stages.json", "test_dialogues.jsonl", "metrics.json", "config.yaml"],
)
def test_a_damaged_file_costs_its_section_and_is_named(tmp_path, file):
    folder = write_run(tmp_path / "run", dialogues_of(2))
    (folder / file).write_text("{'half a", encoding="utf-8")
    other = write_run(tmp_path / "other", dialogues_of(2), algo="sft")
    search = write_search(tmp_path / "search", hand_made())
    write_json(other / "stages.json", {"search": str(search)})
    if file == "config.yaml":
        write_json(folder / "stages.json", {"search": str(search)})
    page = page_of([folder, other], tmp_path)
    assert file in page[page.index('<section id="runs">') :]
    assert {"results", "turns", "training", "trees"} <= set(sections_of(page))


def test_an_unfinished_run_shows_how_far_it_came(tmp_path):
    folder = tmp_path / "under-way"
    write_jsonl(folder / "train_log.jsonl", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}, {"step": 3, "loss": 1.0}])
    write_json(folder / "stages.json", {})
    assert run_folders(tmp_path) == [folder]
    page = page_of(run_folders(tmp_path), tmp_path)
    assert sections_of(page) == ["training", "runs"]
    assert "1 cell without numbers" in page
    (loss,) = figures_of(page, "chart-training")
    assert loss["data"][0]["x"] == [1, 2, 3] and loss["data"][0]["y"] == [2.0, None, 1.0]


def test_no_text_breaks_out_of_the_page(tmp_path):
    texts = [HOSTILE, "\u2028\u0000 👪🏽 עברית"]
    said = tuple(turn for text in texts for turn in (Turn("seeker", text), Turn("supporter", text, NAMES[0])))
    tree = hand_made()
    tree.scene = tree.description = tree.nodes[1].supporter = tree.nodes[1].seeker = HOSTILE
    search = write_search(tmp_path / "search", tree, notice=HOSTILE)
    folder = write_run(
        tmp_path / "run",
        [Dialogue("d", HOSTILE, HOSTILE, said)],
        search=search,
        label=HOSTILE,
        algo_label=HOSTILE,
        varied={"a.b": HOSTILE},
    )
    # JSON can hold half of a surrogate pair, UTF-8 cannot.
    left = read_json(folder / "metrics.json")
    left["cell"]["mode_label"] = "\ud800"
    (folder / "metrics.json").write_text(json.dumps(left))
    page = page_of([folder], tmp_path)
    assert "<img" not in page and HOSTILE not in page
    assert data_of(page, "turn-data")["turns"][0][3] == HOSTILE
    assert page.count("<script") == page.count("</script>")
    assert "&#55296;" in page


def test_labels_of_charts_are_no_markup():
    assert chart_label("<b>x</b> & y") == "&lt;b&gt;x&lt;/b&gt; &amp; y"
    assert wrapped_label("Avoid Judgment and <Criticism>", 12) == "Avoid<br>Judgment and<br>&lt;Criticism&gt;"


def test_differences_are_ours_less_the_papers():
    assert (Value.of(3.5, 4.0).difference, Value.of(4, 3).difference, Value.of(None, 3.0).difference) == (
        "\u22120.50",
        "+1",
        "",
    )
    assert Value.of(1234, 1000).ours == "1,234" and Value.of(None).ours == "–" and Value.of(0.5).paper == ""


def test_the_first_of_each_kind_are_compared_first(tmp_path):
    report = ReportData(write_sweep(tmp_path, 8, turns=2), tmp_path)
    algorithms = [run.cell.algo for run in report.runs]
    first = first_of_each_kind([run.cell for run in report.runs])
    assert [algorithms[place] for place in first] == ["base", "sft", "dpo"]
    assert [report.runs[place].colour for place in first] == [0, 1, 2]
    assert sorted(run.colour for run in report.runs) == list(range(8))


def test_the_command_makes_the_page_of_runs_and_of_a_search(tmp_path):
    write_run(tmp_path / "runs" / "a", dialogues_of(1))
    write_search(tmp_path / "search", hand_made())

    def run(folder) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "cso_lab.reporting.html", str(folder)], capture_output=True, text=True, timeout=60
        )

    assert run(tmp_path / "runs").stdout.strip() == str(tmp_path / "runs" / "report.html")
    assert run(tmp_path / "search").stdout.strip() == str(tmp_path / "search" / "report.html")
    (tmp_path / "empty").mkdir()
    nothing = run(tmp_path / "empty")
    assert nothing.returncode == 2 and nothing.stderr.startswith("error: ") and len(nothing.stderr.splitlines()) == 1
