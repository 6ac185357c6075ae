"""Generation on tiny random models: batches, shared prefixes and openings change how fast replies come, never what they are."""

import json
import math

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


def bigram_model(probabilities, size=16):
    """Returns a model whose next token depends on the last one alone: {token: {next token: probability}}; other tokens: evenly."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": size, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=size, tie_word_embeddings=False, rms_norm_eps=0.0, **sizes)).eval()
    table = torch.full((size, size), 1 / size)
    for token, following in probabilities.items():
        table[token] = 1e-9
        for other, probability in following.items():
            table[token, other] = probability
    with torch.no_grad():
        for layer in model.model.layers:  # what the layers add is nothing, so that only the last token's embedding counts
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.copy_(
            table.log().T / size**0.5
        )  # the final norm multiplies a unit vector by the square root of its size
    return model


# Two names begin with token 3, and one with 4: 0.6 x 0.5 for either of the two, 0.4 x 1 for the other one.
NAMES, BIGRAMS = (
    [[3, 5], [3, 6], [4, 7]],
    {2: {3: 0.6, 4: 0.4}, 3: {5: 0.5, 6: 0.5}, 4: {7: 1.0}, 5: {8: 1}, 6: {8: 1}, 7: {8: 1}},
)


def test_the_likeliest_name_is_not_the_one_of_the_likeliest_tokens():
    from cso_lab.generation.batched_decoding import Decoding, opening_log_probabilities, reply_ids

    model, decoding = bigram_model(BIGRAMS), Decoding(max_new_tokens=4, temperature=0.0, ends=(8,))
    prompts = [[9, 2], [9, 10, 11, 2], [9, 10, 2]]
    assert reply_ids(model, prompts, decoding, NAMES) == [[3, 5]] * 3
    assert reply_ids(model, prompts, decoding, NAMES, by_likelihood=True) == [[4, 7]] * 3
    for scores in opening_log_probabilities(model, prompts, NAMES):
        assert [math.exp(score) for score in scores] == pytest.approx([0.3, 0.3, 0.4], rel=1e-4)


@pytest.mark.parametrize(("temperature", "shares"), [(1.0, [0.3, 0.3, 0.4]), (0.5, [9 / 34, 9 / 34, 16 / 34])])
def test_above_temperature_0_names_are_drawn_by_their_probabilities(temperature, shares):
    import torch

    from cso_lab.generation.batched_decoding import Decoding, reply_ids

    decoding = Decoding(max_new_tokens=4, temperature=temperature, ends=(8,))
    torch.manual_seed(0)
    replies = reply_ids(bigram_model(BIGRAMS), [[9, 2]] * 2000, decoding, NAMES, by_likelihood=True)
    assert [replies.count(name) / 2000 for name in NAMES] == pytest.approx(shares, abs=0.04)


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("backbone", ["tiny_llama", "tiny_qwen", "tiny_gemma"])
def test_names_are_scored_as_by_plain_passes_and_the_reply_goes_on_after_the_likeliest(shared, backbone, carried):
    import torch

    from cso_lab.generation.batched_decoding import CarriedContexts, Decoding, opening_log_probabilities, reply_ids
    from cso_lab.training.backbone import load_model

    model, start = load_model(config(shared, backbone)), list(range(20, 40))
    prompts = [start + [50], start + [50, 51, 52, 53], [90, 91], start + [50, 51, 52, 53, 54, 55], start + [70, 71]]
    names = [[300, 301, 302], [300, 301, 303, 304], [305], [306, 301, 302]]
    decoding, expected = Decoding(max_new_tokens=7, temperature=0.0, ends=()), []
    for prompt in prompts:
        alone = []
        for name in names:
            with torch.inference_mode():
                scores = model(torch.tensor([prompt + name])).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
            alone.append(float(scores.gather(1, torch.tensor(name)[:, None]).sum()))
        expected.append(alone)
    for scores, alone in zip(opening_log_probabilities(model, prompts, names), expected, strict=True):
        assert scores == pytest.approx(alone, abs=1e-4)
    replies = reply_ids(model, prompts, decoding, names, CarriedContexts() if carried else None, by_likelihood=True)
    for prompt, reply, alone in zip(prompts, replies, expected, strict=True):
        name = names[alone.index(max(alone))]
        assert reply == name + reply_ids(model, [prompt + name], decoding)[0][: 7 - len(name)]


def test_replies_in_given_strategies_depend_on_their_seeds_and_not_on_their_batch(shared):
    from cso_lab.core.records import prompt_messages
    from cso_lab.generation.local import LocalModel

    cfg = config(shared, "tiny_llama", "generation.temperature=0.8", "generation.max_new_tokens=30")
    history = dialogue("a", 3).turns
    asked = [(prompt_messages(history[:n], EXTES), EXTES.names[i], 10 + i) for i, n in enumerate((1, 3, 5, 3, 1))]
    asked.append((*asked[0][:2], 99))
    with LocalModel(cfg, None, EXTES, carry=True) as model:
        together = model.replies_in(*zip(*asked, strict=True))
        assert [model.replies_in([messages], [name], [seed])[0] for messages, name, seed in asked] == together
    assert all(text and not text.startswith("(") for text, *_ in together) and together[0] != together[-1]


@pytest.mark.parametrize("form", ["format", "likelihood"])
@pytest.mark.parametrize("backbone", ["tiny_llama", "tiny_qwen", "tiny_gemma"])
def test_every_reply_can_be_made_to_open_with_a_strategy(shared, backbone, form, tmp_path):
    from cso_lab.generation.generate import generate

    line = (f"generation.constrain={form}", "generation.max_new_tokens=40", "generation.batch_size=4")
    cfg = config(shared, backbone, *line)
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


def test_planned_tokens_count_a_history_once_and_every_reply_s_own_tokens():
    from cso_lab.generation.batched_decoding import planned_tokens

    history = list(range(10))
    # One context of nine tokens, in which both prompts are, and of each prompt its last token.
    assert planned_tokens([history[:4], history], 5) == (9 + 2, 9 + 2 * 5)
    # Another one shares four of its seven tokens with it; it has one prompt, and is decoded by itself.
    assert planned_tokens([history[:4], history, [*history[:4], 90, 91, 92, 93]], 5) == (9 + 7 + 3, 9 + 2 * 5)
