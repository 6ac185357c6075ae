"""The strategy test set: what is drawn, and which numbers come from it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cso_lab.core.errors import UserError
from cso_lab.core.files import write_jsonl
from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, Prediction, Turn
from cso_lab.core.strategies import EXTES
from cso_lab.evaluation.score import evaluate_predictions
from cso_lab.evaluation.testset import draw_contexts, evaluate_on_contexts

NAMES = EXTES.names


def dialogue(name, utterances, opens_with=SEEKER):
    speakers = (SEEKER, SUPPORTER) if opens_with == SEEKER else (SUPPORTER, SEEKER)
    turns = [
        Turn(speakers[i % 2], f"{name}.{i}", NAMES[i % 8] if speakers[i % 2] == SUPPORTER else None) for i in range(utterances)
    ]
    return Dialogue(name, "s", "d", tuple(turns))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 40), st.sampled_from([SEEKER, SUPPORTER])), min_size=1, max_size=6),
    st.integers(0, 3),
    st.integers(2, 6),
)
def test_several_cut_points_a_dialogue_after_5_to_15_utterances(shapes, seed, cuts):
    dialogues = [dialogue(f"d{i}", n, opens_with) for i, (n, opens_with) in enumerate(shapes)]
    long_enough = [d for d in dialogues if len([i for i in d.supporter_turns() if 5 <= i <= 15]) >= 2]
    if not long_enough:
        with pytest.raises(UserError, match="evaluation.testset=turns"):
            draw_contexts(dialogues, 5, 15, cuts, seed)
        return
    contexts = draw_contexts(dialogues, 5, 15, cuts, seed)
    assert contexts == draw_contexts(dialogues, 5, 15, cuts, seed)
    # what is drawn from a dialogue does not depend on the others
    assert [c for c in contexts if c.dialogue == long_enough[0].id] == draw_contexts(long_enough[:1], 5, 15, cuts, seed)
    by_id = {d.id: d for d in dialogues}
    for context in contexts:
        turns = by_id[context.dialogue].turns
        assert 5 <= len(context.history) <= 15 and context.history == turns[: context.turn]
        assert turns[context.turn] == Turn(SUPPORTER, context.gold_response, context.gold_strategy)
    drawn = {d.id: [c.turn for c in contexts if c.dialogue == d.id] for d in dialogues}
    for d in dialogues:
        assert drawn[d.id] == sorted(set(drawn[d.id]))
        fitting = [i for i in d.supporter_turns() if 5 <= i <= 15]
        assert len(drawn[d.id]) == (min(cuts, len(fitting)) if d in long_enough else 0)


def test_another_seed_draws_other_cut_points():
    dialogues = [dialogue(f"d{i}", 20) for i in range(10)]
    first, second = ({(c.dialogue, c.turn) for c in draw_contexts(dialogues, 5, 15, 3, seed)} for seed in (0, 1))
    assert first != second and len(first) == len(second) == 30


def test_turns_without_a_strategy_are_no_cut_points():
    turns = [Turn(t.speaker, t.text) if i in (5, 7) else t for i, t in enumerate(dialogue("d", 13).turns)]
    drawn = draw_contexts([Dialogue("d", "s", "d", tuple(turns))], 5, 15, 9, 0)
    assert [context.turn for context in drawn] == [9, 11]


def predictions():
    """At turns 1 to 11; right from turn 5 on, and word by word the gold response only before it."""
    return [
        Prediction("d", i, NAMES[0], f"a b c d {i}", NAMES[0 if i >= 5 else 1], f"a b c d {i}" if i < 5 else "x y", "raw")
        for i in (1, 3, 5, 7, 9, 11)
    ]


def contexts_file(tmp_path, *turns):
    path = tmp_path / "contexts.jsonl"
    write_jsonl(path, [{"dialogue": "d", "turn": turn} for turn in turns])
    return path


def test_the_strategy_set_gives_all_numbers_but_rouge(tmp_path):
    scores = evaluate_on_contexts(predictions(), contexts_file(tmp_path, 5, 9), EXTES)
    of_all = evaluate_predictions(predictions(), EXTES)
    assert scores["n"] == 2 and scores["turns"] == 6
    assert scores["Q_W"] == 100 and of_all["Q_W"] == pytest.approx(80)  # 4 of 6 right: precision 1, recall 2/3
    assert scores["R-L"] == of_all["R-L"] == pytest.approx(100 / 3)
    assert scores["intervals"]["R-L"] == of_all["intervals"]["R-L"] and scores["intervals"]["Q_W"] == [100, 100]
    assert scores["strategies"][NAMES[0]]["support"] == 2


def test_a_byte_order_mark_before_the_contexts_changes_nothing(tmp_path):
    path = contexts_file(tmp_path, 5, 9)
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert evaluate_on_contexts(predictions(), path, EXTES)["n"] == 2


def test_contexts_without_a_prediction(tmp_path):
    path = contexts_file(tmp_path, 5, 9, 15)
    with pytest.raises(UserError, match="1 of 3 turns of .* have no prediction"):
        evaluate_on_contexts(predictions(), path, EXTES)
    assert evaluate_on_contexts(predictions(), path, EXTES, complete=False)["n"] == 2
    with pytest.raises(UserError, match="1 of 1"):
        evaluate_on_contexts(predictions(), contexts_file(tmp_path, 15), EXTES, complete=False)


def test_a_saved_context_is_one_line_with_its_history(tmp_path):
    path = tmp_path / "contexts.jsonl"
    write_jsonl(path, draw_contexts([dialogue("d", 9)], 5, 15, 4, 0))
    first, second = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert (first["turn"], second["turn"]) == (5, 7) and len(first["history"]) == 5
    assert first["history"][0] == {"speaker": SEEKER, "text": "d.0", "strategy": None}
