"""GRPO on tiny models: replies that share their prompt, the loss of TRL's own trainer, and what a training leaves and refuses."""

import json
import math

import pytest
from project import composed
from trainings import config, fill_adapter

from cso_lab.core.errors import UserError
from cso_lab.core.files import write_jsonl
from cso_lab.core.records import SEEKER, Turn, prompt_messages
from cso_lab.core.strategies import EXTES
from cso_lab.pipeline.check import check

LINE = ["algo=grpo", "algorithm.num_generations=4", "training.batch_size=8", "algorithm.max_new_tokens=12"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prompts = [prompt_messages([Turn(SEEKER, f"I feel low today, number {i}.")], EXTES) for i in range(4)]
    rows = [{"prompt": p, "preferred": [EXTES.names[0]], "values": {EXTES.names[1]: 1.0}, "dialogue": "d"} for p in prompts]
    write_jsonl(folder / "prompts.jsonl", rows)
    return folder


def trainer_of(cfg, data, out):
    from trainings import trainer_of

    trainer, chat, rows, _ = trainer_of(cfg, data, out)
    return trainer, chat, rows


@pytest.mark.long
@pytest.mark.parametrize(("backbone", "mode"), [("tiny_llama", "lora"), ("tiny_qwen", "full"), ("tiny_gemma", "lora")])
def test_a_training_changes_weights_and_logs_rewards_and_kl(shared, data, tmp_path, backbone, mode):
    import torch

    from cso_lab.training.backbone import load_model
    from cso_lab.training.train import train

    cfg = config(
        shared, *LINE, f"backbone={backbone}", f"mode={mode}", "generation.constrain=format", "training.max_prompt_length=2000"
    )
    summary = train(cfg, data, tmp_path)
    assert (summary["steps"], summary["rows"]["used"]) == (2, 4)
    assert summary["token_ratio"] > 2  # a group's replies share their prompt in the loss, too
    steps = [json.loads(line) for line in (tmp_path / "train_log.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2]
    for step in steps:
        logged = [f"rewards/{name}/mean" for name in ("strategy", "form", "judge")]
        assert all(math.isfinite(step[key]) for key in ("loss", "kl", "reward", "completions/mean_length", *logged))
        assert step["rewards/form/mean"] > 0.5
    before, after = load_model(cfg).state_dict(), load_model(cfg, tmp_path / "checkpoint").state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.long
def test_an_adapter_on_quantized_weights_learns_in_float32(shared, data, tmp_path):
    pytest.importorskip("bitsandbytes")
    import torch

    cfg = config(shared, *LINE, "mode=qlora", "generation.constrain=format", "training.max_prompt_length=2000")
    trainer, _, _ = trainer_of(cfg, data, tmp_path)
    assert {weight.dtype for weight in trainer.model.parameters() if weight.requires_grad} == {torch.float32}
    trainer.train()
    assert all(weight.any() for name, weight in trainer.model.named_parameters() if "lora_B" in name)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_the_loss_is_that_of_the_stock_trainer(shared, data, tmp_path, mode):
    import torch

    found = {}
    for share in ("true", "false"):
        line = [f"mode={mode}", f"training.share_prefixes={share}", "training.per_device_batch_size=8"]
        cfg = config(shared, *LINE, *line, "training.max_prompt_length=2000", "algorithm.weights.judge=0")
        trainer, _, _ = trainer_of(cfg, data, tmp_path / share)
        fill_adapter(trainer.model)
        trainer.model.train()
        [batch] = list(trainer.get_train_dataloader())[:1]
        if "inputs" not in found:
            found["inputs"] = trainer._generate_and_score_completions(batch)
            found["inputs"]["advantages"] = torch.linspace(-1, 1, 8)
        trainer.current_gradient_accumulation_steps = 1
        loss = trainer.compute_loss(trainer.model, dict(found["inputs"]))
        loss.backward()
        gradient = torch.cat([weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None])
        found[share] = loss.item(), gradient
    assert found["true"][0] == pytest.approx(found["false"][0], rel=1e-5, abs=1e-7)
    assert found["false"][1].norm() > 0
    assert (found["true"][1] - found["false"][1]).norm() <= 2e-5 * found["false"][1].norm()


@pytest.mark.long
def test_replies_are_those_of_the_model_and_of_the_adapter_in_training(shared, data, tmp_path):
    """At a temperature near 0, free replies are what `generate` writes; the prompt of a group is computed once."""
    import torch

    cfg = config(shared, *LINE, "algorithm.temperature=0.0001", "training.max_prompt_length=2000")
    trainer, chat, rows = trainer_of(cfg, data, tmp_path)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.2)
    prompts = [rows[0]["prompt"]] * 3 + [rows[1]["prompt"]] * 3
    trainer.model.train()
    written = trainer.rollout_func(prompts, trainer)
    assert trainer.model.training
    for prompt, ids, reply in zip(prompts, written["prompt_ids"], written["completion_ids"], strict=True):
        assert ids == chat.ids(prompt)
        with torch.inference_mode():
            whole = trainer.model.eval().generate(
                input_ids=torch.tensor([ids]), max_new_tokens=12, do_sample=False, eos_token_id=trainer.eos_token_ids
            )
        assert reply == whole[0, len(ids) :].tolist()
    assert "env_mask" not in written


def test_tokens_of_an_opening_without_a_choice_are_left_out_of_the_loss(shared, data, tmp_path):
    cfg = config(shared, *LINE, "generation.constrain=format", "algorithm.max_new_tokens=20", "training.max_prompt_length=2000")
    trainer, chat, rows = trainer_of(cfg, data, tmp_path)
    written = trainer.rollout_func([rows[0]["prompt"]] * 8, trainer)
    for reply, counted in zip(written["completion_ids"], written["env_mask"], strict=True):
        text = chat.tokenizer.decode(reply)
        name = next(name for name in EXTES.names if text.startswith(f"({name})"))
        # the bracket that opens every strategy, and the end of a name that no other one has in common with it
        assert counted[0] == 0 and 1 in counted
        opening = next(n for n in range(1, len(reply) + 1) if f"({name})" in chat.tokenizer.decode(reply[:n]))
        assert all(counted[opening:]) and counted[opening - 1] == 0


def test_an_opening_chosen_by_likelihood_counts_but_for_what_all_openings_begin_with(shared, data, tmp_path):
    line = ["generation.constrain=likelihood", "algorithm.max_new_tokens=20", "training.max_prompt_length=2000"]
    trainer, chat, rows = trainer_of(config(shared, *LINE, *line), data, tmp_path)
    written = trainer.rollout_func([rows[0]["prompt"]] * 8, trainer)
    for reply, counted in zip(written["completion_ids"], written["env_mask"], strict=True):
        assert any(chat.tokenizer.decode(reply).startswith(f"({name})") for name in EXTES.names)
        assert counted[0] == 0 and all(counted[1:])


def test_groups_that_do_not_fit_are_refused_before_any_work():
    for line, message in (
        (["training.batch_size=6"], "is no multiple of algorithm.num_generations=8"),
        (["algorithm.num_generations=1"], "at least 2"),
        (["hardware=zero3"], "algo=grpo writes replies with whole weights"),
        (["algorithm.rewards.form._target_=cso_lab.training.rewards.rewards.Neat"], "Neat"),
        (["+algorithm.rewards.form.bonus=2"], "algorithm.rewards.form: .*bonus"),
    ):
        with pytest.raises(UserError, match=message):
            check(composed("algo=grpo", "backbone=tiny_llama", "training.batch_size=16", *line))


@pytest.mark.long
def test_fewer_prompts_than_a_step_takes_are_refused(shared, data, tmp_path):
    from cso_lab.training.train import train

    with pytest.raises(UserError, match="there are 4 prompts, and a step takes 8"):
        train(config(shared, *LINE, "training.batch_size=32"), data, tmp_path)
