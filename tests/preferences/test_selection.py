"""Which pairs are selected: one negative of a turn, no gold replies; turns and rows of SFT stay as they are."""

from pathlib import Path

import pytest
from project import composed
from small_search import ABC, hand_made

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, read_jsonl
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.check import check
from cso_lab.pipeline.run_cell import run_stages
from cso_lab.preferences.escpro import EscPro, distinct_pairs
from cso_lab.preferences.rows import sft_rows
from cso_lab.preferences.selection import Selection


@pytest.fixture
def paths():
    """The paths of the hand-made tree, whose node 1 has a second negative beside 2: C [3], lower in Q and higher in prior."""
    tree = hand_made()
    tree.nodes[2].q, tree.nodes[3].q, tree.nodes[3].n = 0.2, -0.5, 4
    tree.nodes[3].prior = 0.3
    return EscPro(theta=0.5, min_end_visits=2)([tree])


def negatives(paths):
    return {choice.preferred.id: [node.id for node in choice.negatives] for path in paths for choice in path.choices}


def test_as_it_comes_every_pair_is_selected_and_nothing_is_counted(paths):
    assert negatives(paths) == {1: [2, 3], 4: [6], 5: [6]}
    assert Selection()(paths) == (paths, {})


@pytest.mark.parametrize(("choose", "of_the_first"), [("nearest", [2]), ("favourite", [3])])
def test_one_negative_a_turn_by_q_or_by_prior(paths, choose, of_the_first):
    selected, counts = Selection(choose=choose)(paths)
    assert negatives(selected) == {1: of_the_first, 4: [6], 5: [6]}
    assert counts == {"all": 4, "choose": 3} and len(distinct_pairs(selected)) == 3
    assert sft_rows(selected, ABC) == sft_rows(paths, ABC)


def test_without_gold_no_preferred_reply_is_the_corpuss(paths):
    selected, counts = Selection(gold=False, choose="nearest")(paths)
    assert negatives(selected) == {1: [], 4: [], 5: [6]}
    assert counts == {"all": 4, "gold": 1, "choose": 1}
    assert sft_rows(selected, ABC) == sft_rows(paths, ABC)


def test_every_preferred_strategy_has_as_many_pairs_as_the_rarest_drawn_by_the_seed(paths):
    # A is preferred in three pairs, beside 2 and 3 at the first turn and beside 6 at the second; B in one
    drawn = set()
    for seed in range(20):
        selected, counts = Selection(balance="strategy", seed=seed)(paths)
        pairs = distinct_pairs(selected)
        assert counts == {"all": 4, "balance": 2} and sorted(pair.chosen.strategy for pair in pairs) == ["A", "B"]
        assert selected == Selection(balance="strategy", seed=seed)(paths)[0]
        assert sft_rows(selected, ABC) == sft_rows(paths, ABC)
        drawn.add(next(pair.rejected.text for pair in pairs if pair.chosen.strategy == "A"))
    assert drawn == {"b", "c", "a c"}
    assert Selection(balance="strategy")([]) == ([], {"all": 0, "balance": 0})
    # the steps in turn: no gold reply is left, and one pair is in balance with itself
    assert Selection(gold=False, balance="strategy")(paths)[1] == {"all": 4, "gold": 1, "balance": 1}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["preferences.choose=best"], "preferences.choose=best: should be 'all', 'nearest' or 'favourite'"),
        (["preferences.balance=turn"], "preferences.balance=turn: should be 'none' or 'strategy'"),
        (["preferences.gold=0"], "preferences.gold=0: should be a valid boolean"),
        (
            ["data=escpro", "preferences.choose=nearest"],
            "preferences.choose=nearest selects by the trees of a search, and data=escpro",
        ),
        (["data=escpro", "preferences.gold=false"], "give preferences.gold=True"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused_before_any_work(line, expected, tmp_path):
    (tmp_path / "escpro.json").write_text("[]")
    with pytest.raises(UserError, match=expected):
        check(composed(*line, f"data.path={tmp_path}/escpro.json") if "data=escpro" in line else composed(*line))


@pytest.mark.long
def test_a_dataset_holds_the_selected_pairs_and_says_how_many_there_were(tmp_path):
    line = ["stages=[search,dataset]", "data.seed_dialogues=2", f"shared_dir={tmp_path}/shared"]
    folders = {}
    for name, choice in {"all": [], "selected": ["preferences.gold=false", "preferences.choose=nearest"]}.items():
        run_stages(CellContext(composed(*line, *choice), tmp_path / name))
        folders[name] = Path(read_json(tmp_path / name / "stages.json")["dataset"])
    rows = {name: read_jsonl(folder / "preferences" / "pairs.jsonl") for name, folder in folders.items()}
    statistics = {name: read_json(folder / "statistics.json") for name, folder in folders.items()}
    assert 0 < len(rows["selected"]) < len(rows["all"]) and all(row in rows["all"] for row in rows["selected"])
    prompts = [row["prompt"] + row["chosen"] for row in rows["selected"]]
    assert all(prompts.count(prompt) == 1 for prompt in prompts)
    assert "selection" not in statistics["all"]
    counts = statistics["selected"]["selection"]
    assert counts["all"] == len(rows["all"]) and counts["choose"] == len(rows["selected"]) <= counts["gold"] < counts["all"]
    assert read_jsonl(folders["selected"] / "preferences" / "sft.jsonl") == read_jsonl(
        folders["all"] / "preferences" / "sft.jsonl"
    )
