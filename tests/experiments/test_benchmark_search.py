"""What the benchmark of the search prints, and how it compares what two searches found."""

import json
from collections import Counter

import pytest

from experiments.benchmarks import search
from experiments.benchmarks.loopback import server
from experiments.benchmarks.measured import client


def test_the_share_in_common_by_hand():
    assert search.common(Counter("aab"), Counter("aab")) == 1
    assert search.common(Counter("a"), Counter("b")) == 0 == search.common(Counter(), Counter("a"))
    # a: the lesser of 3/4 and 1/2, b: of 1/4 and 0, c: of 0 and 1/2
    assert search.common(Counter("aaab"), Counter("ac")) == 0.5


def test_with_json_standard_output_is_one_line_and_the_table_stands_beside_it(monkeypatch, capsys):
    monkeypatch.setattr(search, "PARTS", {"a": lambda latency: {"wall, s": 2 * latency}, "c": lambda: {"calls": 7}})
    search.main(["--parts", "c,a", "--latency", "0.25", "--json"])
    said, beside = capsys.readouterr()
    assert said.count("\n") == 1 and json.loads(said) == {"at_once": 32, "c": {"calls": 7}, "a": {"wall, s": 0.5}}
    assert "wall, s" in beside and "96 dialogues" in beside
    search.main(["--parts", "c"])
    said, beside = capsys.readouterr()
    assert "calls" in said and "7" in said and beside == ""


def test_an_unknown_part_is_named_with_the_valid_ones(capsys):
    with pytest.raises(SystemExit):
        search.main(["--parts", "a,x"])
    assert "no such part: x; valid: a, b, c, d" in capsys.readouterr().err


@pytest.mark.long
def test_every_part_measures_a_search_that_took_place(capfd):
    many = search.many_dialogues(0.02, dialogues=2)
    assert many["floor, s"] == many["calls without speculation"] * 0.02 / 32 < many["wall, s"]
    one = search.one_dialogue(0.02, count=3)
    assert one["same tree"] is True and one["calls ahead"] >= one["calls"] > 40
    memory = search.memory_on_and_off(dialogues=2, count=12)
    assert memory["on: calls"] < memory["off: calls"] and memory["on: distinct pairs"] > 0
    assert 0 < memory["on and off: strategies in common, %"] <= 100
    with server(0, thinking=False) as address:
        assert client(address, "openai", 20, 4) > 0
    assert capfd.readouterr().out == ""
