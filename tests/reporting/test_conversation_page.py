"""Conversations in report.html: what the page's data say of conversations written down, and that damage does not break it."""

import json
import re

import pytest
from conversations import PLAN, VALIDATE, written
from reporting.conversation_runs import write_conversations

from cso_lab.conversation.records import CONVERSATION_METRICS, CONVERSATIONS
from cso_lab.core.files import read_json, write_json
from cso_lab.reporting.html import conversations as sections
from cso_lab.reporting.html.page import write_report_page

SCORES = {"E": 4, "I": 1, "H": 3, "S": 2}
HELD = [
    written(1, "open", [(VALIDATE, "I hear you.", 6.0, SCORES, ()), (PLAN, "Let us plan.", 3.456, None, ())], "relieved"),
    written(2, "irritated", [(None, "Get over it.", 10.0, SCORES, ("dismissal",))], "hurt"),
]
OTHERS = [written(1, "open", [(VALIDATE, "Hm.", 8.0, SCORES, ())], "out_of_turns")]


@pytest.fixture(autouse=True)
def without_the_library(monkeypatch):
    """The chart library only makes these pages slow to search; the browser's tests have it."""
    monkeypatch.setattr("cso_lab.reporting.html.page.plotly_js", lambda: "")


@pytest.fixture
def folders(tmp_path):
    return [
        write_conversations(tmp_path / "dpo", HELD, max_turns=3),
        write_conversations(tmp_path / "gold", OTHERS, "base", "gold", max_turns=3),
    ]


def page_of(folders, out) -> str:
    return write_report_page(folders, out, "A sweep").read_text(encoding="utf-8")


def seekers_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="seeker-data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def figures_of(page: str, id: str) -> list:
    (text,) = re.findall(rf'<figure class="chart" id="{id}">.*?<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_the_same_seeker_stands_once_with_what_each_cell_held(folders, tmp_path):
    data = seekers_of(page_of(folders, tmp_path))
    assert data["cells"] == ["SmolLM2-135M-Instruct, LoRA, CSO-DPO", "reference: gold supporter replayed"]
    assert [(seeker["number"], seeker["persona"], seeker["intensity"]) for seeker in data["seekers"]] == [
        (1, "open", 8.0),
        (2, "irritated", 8.0),
    ]
    assert data["strategies"] == [VALIDATE, PLAN] and data["longest"] == 2 and data["thresholds"] == [4, 4]
    assert data["held"][0] == [
        [
            "relieved",
            None,
            [[0, "I hear you.", "answer 0", 6.0, [], [4, 1, 3, 2]], [1, "Let us plan.", "answer 1", 3.46, [], None]],
        ],
        ["hurt", None, [[-1, "Get over it.", "answer 0", 10.0, ["dismissal"], [4, 1, 3, 2]]]],
    ]
    assert data["held"][1] == [["out_of_turns", None, [[0, "Hm.", "answer 0", 8.0, [], [4, 1, 3, 2]]]], None]


def test_another_card_under_the_same_number_is_another_seeker(folders, tmp_path):
    others = [written(1, "guarded", [(PLAN, "Hm.", 8.0, None, ())], "out_of_turns")]
    folders.append(write_conversations(tmp_path / "sft", others, "sft", max_turns=3))
    data = seekers_of(page_of(folders, tmp_path))
    assert [(seeker["number"], seeker["persona"]) for seeker in data["seekers"]] == [
        (1, "open"),
        (1, "guarded"),
        (2, "irritated"),
    ]
    assert [[bool(talk) for talk in held] for held in data["held"]] == [
        [True, False, True],
        [False, True, False],
        [True, False, False],
    ]


def test_curves_have_their_intervals_and_bars_and_heat_maps_their_counts(folders, tmp_path):
    page = page_of(folders, tmp_path)
    metrics = read_json(folders[0] / CONVERSATION_METRICS)
    (curve,) = figures_of(page, "chart-conversation-curve")
    band, line = curve["data"][:2]
    assert line["y"] == [point["value"] for point in metrics["curve"]] and line["x"] == [0, 1, 2, 3]
    assert band["y"] == [point["high"] for point in metrics["curve"]] + [point["low"] for point in reversed(metrics["curve"])]
    assert [trace["line"]["dash"] for trace in curve["data"] if "line" in trace] == ["dash"]  # the reference
    assert [(shape["y0"], shape["y1"]) for shape in curve["layout"]["shapes"]] == [(4, 4)]
    success = figures_of(page, "chart-conversation-groups")[0]["data"]
    assert (success[0]["y"], success[0]["x"], success[0]["customdata"]) == (["irritated", "open"], [0.0, 100.0], [1, 1])
    assert success[1]["x"] == [None, 0.0]
    names = metrics["strategies"]["names"]
    heat = figures_of(page, "chart-transitions-left")[0]["data"][0]
    assert (
        heat["text"][names.index(VALIDATE)][names.index(PLAN)] == "1"
        and heat["z"][names.index(VALIDATE)][names.index(PLAN)] == 100
    )
    assert sum(text != "" for row in heat["text"] for text in row) == 1


def test_the_notice_stands_beside_numbers_and_words_and_harmful_replies_are_listed(folders, tmp_path):
    page = page_of(folders, tmp_path)
    for id in ("conversations", "seekers"):
        section = re.search(rf'<section id="{id}">(.*?)</section>', page, re.DOTALL).group(1)
        assert "Seekers are simulated: they go by strategies, lengths and words, and are no people." in section
    assert "seeker 2, turn 1, dismissal: <q>Hello.</q> <b>Get over it.</b>" in page
    assert "Without numbers" not in page  # these cells were only to hold conversations


def test_what_is_beyond_the_room_of_the_page_is_left_out_and_said(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "MOST_CHARACTERS", 20)
    page = page_of(folders, tmp_path)
    assert len(seekers_of(page)["seekers"]) == 1 and "Of 2 seekers the first 1 are shown" in page


@pytest.mark.parametrize("damage", ["half a line", "no measures", "no such measure", "another reference"])
def test_damaged_conversations_are_left_out_and_named(folders, tmp_path, damage):
    file = folders[0] / (CONVERSATIONS if damage == "half a line" else CONVERSATION_METRICS)
    if damage == "half a line":
        file.write_text('{"seeker": 1', encoding="utf-8")
    else:
        metrics = read_json(file)
        if damage == "no measures":
            del metrics["measures"]
        elif damage == "no such measure":
            del metrics["measures"]["area"]
        else:
            metrics["cell"]["reference"] = "unheard of"
        write_json(file, metrics)
    page = page_of(folders, tmp_path)
    assert seekers_of(page)["cells"] == ["reference: gold supporter replayed"]
    assert "Not read" in page and str(file) in page
