"""Generation on tiny random models: batches, shared prefixes and openings change how fast replies come, never what they are."""

import json

import pytest
from project import composed

from cso_lab.core.errors import UserError
from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, Turn
from cso_lab.core.strategies import EXTES, parse_reply


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


def config(shared, backbone, *overrides):
    fixed = [f"backbone={backbone}", "algo=base", f"shared_dir={shared}", "training.dtype=float32", "hardware=cpu"]
    return composed(*fixed, "generation.max_new_tokens=6", *overrides)


def dialogue(name, turns, opening=()):
    seeker = [Turn(SEEKER, f"I feel low today, {name} {'again and again ' * i}") for i in range(turns)]
    supporter = [Turn(SUPPORTER, f"That is hard, number {i}.", EXTES.names[i]) for i in range(turns)]
    pairs = zip(seeker, supporter, strict=True)
    return Dialogue(name, "scene", "description", (*opening, *(turn for pair in pairs for turn in pair)))


def predictions(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("backbone", ["tiny_llama", "tiny_qwen", "tiny_gemma"])
def test_a_batch_replies_as_each_prompt_alone_does(shared, backbone):
    """Against the plainest way there is: one prompt, no padding, no cache, the whole sequence read anew for every token."""
    import torch

    from cso_lab.generation.batched_decoding import Decoding, reply_ids
    from cso_lab.training.backbone import load_model

    model = load_model(config(shared, backbone))
    # Two dialogues whose prompts extend one another, one prompt that only shares the beginning, and one that is alone.
    start = list(range(20, 40))
    prompts = [start + [50], start + [50, 51, 52, 53], [90, 91], start + [50, 51, 52, 53, 54, 55, 56], start + [70, 71]]
    together = reply_ids(model, prompts, Decoding(max_new_tokens=6, temperature=0.0, ends=()))
    for prompt, reply in zip(prompts, together, strict=True):
        alone = list(prompt)
        with torch.inference_mode():
            for _ in range(6):
                alone.append(int(model(torch.tensor([alone])).logits[0, -1].argmax()))
        assert reply == alone[len(prompt) :]


def test_a_reply_stops_before_the_token_that_ends_it(shared):
    from cso_lab.generation.batched_decoding import Decoding, reply_ids
    from cso_lab.training.backbone import load_model

    model = load_model(config(shared, "tiny_llama"))
    whole = reply_ids(model, [[20, 21, 22]], Decoding(max_new_tokens=6, temperature=0.0, ends=()))[0]
    end = whole[2]
    ended = reply_ids(model, [[20, 21, 22]], Decoding(max_new_tokens=6, temperature=0.0, ends=(end,)))[0]
    assert ended == whole[: whole.index(end)]


def test_openings_are_kept_to_and_nothing_after_them_is_forced(shared):
    from cso_lab.generation.batched_decoding import Decoding, reply_ids
    from cso_lab.training.backbone import load_model

    model = load_model(config(shared, "tiny_llama"))
    decoding = Decoding(max_new_tokens=6, temperature=0.0, ends=())
    openings = [[300], [301, 302, 303], [301, 305]]
    replies = reply_ids(model, [[20, 21], [30, 31, 32]], decoding, openings)
    for prompt, reply in zip([[20, 21], [30, 31, 32]], replies, strict=True):
        opening = next(opening for opening in openings if reply[: len(opening)] == opening)
        assert len(reply) == 6
        assert reply[len(opening) :] == reply_ids(model, [prompt + opening], decoding)[0][: 6 - len(opening)]


@pytest.mark.parametrize("backbone", ["tiny_llama", "tiny_qwen", "tiny_gemma"])
def test_with_format_every_reply_opens_with_a_strategy(shared, backbone, tmp_path):
    from cso_lab.generation.generate import generate

    cfg = config(shared, backbone, "generation.constrain=format", "generation.max_new_tokens=40", "generation.batch_size=4")
    generate(cfg, [dialogue("a", 2), dialogue("b", 1)], EXTES, None, tmp_path)
    found = predictions(tmp_path)
    assert [(row["dialogue"], row["turn"]) for row in found] == [("a", 1), ("a", 3), ("b", 1)]
    assert [row["gold_strategy"] for row in found] == [EXTES.names[0], EXTES.names[1], EXTES.names[0]]
    for row in found:
        assert row["strategy"] in EXTES.names
        assert (row["strategy"], row["response"]) == parse_reply(row["raw"], EXTES)


def test_a_refined_reply_opens_with_a_strategy_and_does_not_depend_on_its_batch(shared, tmp_path):
    from cso_lab.generation.generate import generate

    found = []
    for size in (1, 4):
        line = ("decoding=self_refine", "generation.constrain=format", "generation.max_new_tokens=30")
        cfg = config(shared, "tiny_llama", *line, f"generation.batch_size={size}")
        generate(cfg, [dialogue("a", 2), dialogue("b", 1)], EXTES, None, tmp_path / str(size))
        found.append(predictions(tmp_path / str(size)))
    assert found[0] == found[1] and len(found[0]) == 3
    assert all(row["strategy"] in EXTES.names for row in found[0])


def test_an_opening_greeting_is_history_and_not_predicted(shared, tmp_path):
    from cso_lab.generation.generate import generate

    greeting = Turn(SUPPORTER, "Hello, how are you?", EXTES.names[0])
    generate(config(shared, "tiny_gemma"), [dialogue("a", 2, opening=(greeting,))], EXTES, None, tmp_path)
    assert [row["turn"] for row in predictions(tmp_path)] == [2, 4]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_killed_generation_continues_and_ends_the_same(shared, temperature, tmp_path):
    from cso_lab.generation.generate import generate

    cfg = config(shared, "tiny_llama", "generation.batch_size=2", f"generation.temperature={temperature}")
    dialogues = [dialogue("a", 2), dialogue("b", 3)]
    generate(cfg, dialogues, EXTES, None, tmp_path / "whole")
    lines = (tmp_path / "whole" / "predictions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    killed = tmp_path / "killed"
    killed.mkdir()
    # Killed while it wrote the fourth line: the second batch is not whole and is written anew.
    (killed / ".predictions.jsonl.partial").write_text("".join(lines[:3]) + lines[3][:20], encoding="utf-8")
    generate(cfg, dialogues, EXTES, None, killed)
    assert predictions(killed) == predictions(tmp_path / "whole")
    assert [path.name for path in killed.iterdir()] == ["predictions.jsonl"]


def test_what_was_already_written_is_not_generated_again(shared, tmp_path):
    from cso_lab.generation.generate import generate

    cfg = config(shared, "tiny_llama", "generation.batch_size=2")
    generate(cfg, [dialogue("a", 3)], EXTES, None, tmp_path)
    rows = predictions(tmp_path)
    rows[0]["raw"] = "kept"
    (tmp_path / "predictions.jsonl").unlink()
    (tmp_path / ".predictions.jsonl.partial").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]), encoding="utf-8")
    generate(cfg, [dialogue("a", 3)], EXTES, None, tmp_path)
    assert predictions(tmp_path) == rows


def test_the_first_turns_only(shared, tmp_path):
    from cso_lab.generation.generate import generate

    generate(config(shared, "tiny_llama", "generation.max_turns=2"), [dialogue("a", 3)], EXTES, None, tmp_path)
    assert [row["turn"] for row in predictions(tmp_path)] == [1, 3]


def test_what_cannot_be_generated_is_said_in_one_line(shared, tmp_path):
    from cso_lab.generation.generate import generate

    with pytest.raises(UserError, match="dialogue a, turn 1.*generation.max_prompt_length=20"):
        generate(config(shared, "tiny_llama", "generation.max_prompt_length=20"), [dialogue("a", 1)], EXTES, None, tmp_path)
    with pytest.raises(UserError, match="no checkpoint in"):
        generate(config(shared, "tiny_llama"), [dialogue("a", 1)], EXTES, tmp_path / "nothing", tmp_path)
