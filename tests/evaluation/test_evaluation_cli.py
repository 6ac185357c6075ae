"""`python -m cso_lab.evaluation`: only JSON on standard output, one line for an error."""

import json
import subprocess
import sys

import pytest

from cso_lab.evaluation.__main__ import main

ROW = {"gold_strategy": "Question", "gold_response": "how are you", "strategy": "question", "response": "how are you"}


@pytest.fixture
def scored(tmp_path, capsys):
    """Writes lines to a file, scores it, and gives (exit code, standard output, standard error)."""

    def score(*lines, strategies="esconv"):
        path = tmp_path / "predictions.jsonl"
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        code = main([str(path), "--strategies", strategies])
        return code, *capsys.readouterr()

    return score


def test_the_command_prints_json_and_nothing_else(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "strategy": None, "response": "hm"}) + "\n")
    command = [sys.executable, "-m", "cso_lab.evaluation", str(path), "--strategies", "esconv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["Q"] == pytest.approx(200 / 3)  # TP 1, FN 1
    assert (result["B"], result["R-L"], result["n"], result["unparsed"]) == (0, 50, 2, 1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_changes_nothing(tmp_path, capsys, encoding):
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps(ROW) + "\n", encoding=encoding)
    assert main([str(path), "--strategies", "esconv"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 1


def test_a_line_without_strategy_is_parsed_from_raw(scored):
    row = {"gold_strategy": "QUESTION", "gold_response": "how are you", "raw": "(Question) how are you"}
    code, out, _ = scored(row, {**row, "raw": "how are you"})
    result = json.loads(out)
    assert (code, result["unparsed"], result["R-L"]) == (0, 1, 100)
    assert result["strategies"]["Question"]["recall"] == 50


def test_a_null_strategy_stays_unparsed_whatever_raw_says(scored):
    _, out, _ = scored({**ROW, "strategy": None, "raw": "(Question) how are you"})
    assert json.loads(out)["unparsed"] == 1


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["", json.dumps({**ROW, "gold_strategy": "Affirmation"})], ":2: unknown gold_strategy"),
        ([json.dumps(ROW), "{broken"], ":2: not valid JSON"),
        (["[1]"], ":1: expected a JSON object"),
        (["\n", "\n", json.dumps({k: v for k, v in ROW.items() if k != "strategy"})], ":5: missing field 'strategy'"),
        ([json.dumps({k: v for k, v in ROW.items() if k != "response"})], ":1: missing field 'response'"),
        ([json.dumps({k: v for k, v in ROW.items() if k != "gold_response"})], ":1: missing field 'gold_response'"),
        ([json.dumps({k: v for k, v in ROW.items() if k != "gold_strategy"})], ":1: missing field 'gold_strategy'"),
        ([json.dumps({**ROW, "strategy": 3})], ":1: field 'strategy' is int"),
        ([json.dumps({**ROW, "response": None})], ":1: field 'response' is NoneType"),
        ([], "at least one"),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(scored, lines, said):
    code, out, err = scored(*lines)
    assert (code, out) == (2, "")
    assert said in err and err.count("\n") == 1


def test_an_unknown_strategy_set_names_the_valid_ones(scored):
    code, out, err = scored(ROW, strategies="esconf")
    assert (code, out) == (2, "")
    assert err == "error: unknown strategy set 'esconf': did you mean 'esconv'? valid: extes, esconv\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.jsonl"], "cannot read nowhere.jsonl"),
        (["."], "cannot read ."),
        ([], "required: FILE.jsonl"),
        (["a.jsonl", "--seed", "x"], "invalid int value"),
    ],
)
def test_wrong_arguments_are_one_line(capsys, arguments, said):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1
