"""What a training holds in memory: no second model, no logits of a whole tree, and of checkpointed layers their inputs alone."""

import gc
import json
import shutil
from math import prod
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trainings import ALGOS, config, trainer_of
from transformers import PreTrainedModel, TrainerCallback

# More than one tile of TRL's output layer, which takes 32768 words of the vocabulary at once.
VOCABULARY = 40000


def _alive() -> list:
    """The models and parameters that are alive."""
    gc.collect()
    return [item for item in gc.get_objects() if isinstance(item, PreTrainedModel | torch.nn.Parameter)]


class _LiveModels(TrainerCallback):
    """Counts the models alive during the steps, and their parameters, beside those that other tests left alive before it was made."""

    def __init__(self):
        self.models, self.parameters = set(), set()
        self.before = _alive()  # kept, so that no new one takes the identity of one of them

    def on_substep_end(self, args, state, control, **kwargs):
        self.on_step_end(args, state, control)

    def on_step_end(self, args, state, control, **kwargs):
        known = {id(item) for item in self.before}
        new = [item for item in _alive() if id(item) not in known]
        self.models.add(sum(type(item).__name__.endswith("ForCausalLM") for item in new))
        self.parameters.add(sum(item.numel() for item in new if isinstance(item, torch.nn.Parameter)))


def live_models(cfg, data, out):
    """Returns ({numbers of models}, {numbers of parameters beside the model's own}) alive in the steps of a training."""
    count = _LiveModels()
    trainer, *_ = trainer_of(cfg, data, out)
    trainer.add_callback(count)
    trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model)
    own = sum(weight.numel() for weight in model.parameters())
    return count.models, {number - own for number in count.parameters}


@pytest.mark.long
@pytest.mark.parametrize(
    ("algo", "mode", "precomputed", "models"),
    [
        ("dpo", "lora", False, 1),
        ("ipo", "lora", True, 1),
        ("kto", "lora", False, 1),
        ("dpo", "full", True, 1),
        ("kto", "full", True, 1),
        ("ipo", "full", False, 2),
    ],
)
def test_a_reference_model_is_held_only_in_full_training_without_precomputing(
    shared, data, tmp_path, algo, mode, precomputed, models
):
    line = [f"algo={algo}", f"mode={mode}", f"training.precompute_ref_log_probs={str(precomputed).lower()}"]
    alive, others = live_models(config(shared, *line, "training.max_prompt_length=2000"), data, tmp_path)
    assert alive == {models}
    assert (others == {0}) == (models == 1)


@pytest.mark.long
def test_an_adapter_that_starts_from_sft_has_no_second_model_either(shared, data, tmp_path):
    from cso_lab.config.cells import start_of
    from cso_lab.training.arguments import batches, trainer_arguments
    from cso_lab.training.backbone import load_chat_format
    from cso_lab.training.rows import fit_rows, read_rows
    from cso_lab.training.train import train
    from cso_lab.training.trainer import build_trainer

    cfg = config(shared, "algo=dpo_after_sft", "algorithm.start.training.max_steps=1", "training.max_prompt_length=2000")
    train(start_of(cfg), data, tmp_path / "sft")
    chat = load_chat_format(cfg)
    rows, _ = fit_rows(read_rows(data, "pairs"), chat, 2000, 512, None, 0)
    arguments = trainer_arguments(cfg, *batches(cfg), tmp_path / "steps")
    count = _LiveModels()
    trainer = build_trainer(cfg, arguments, rows, chat.tokenizer, tmp_path, tmp_path / "sft" / "checkpoint")
    trainer.add_callback(count)
    trainer.train()
    assert count.models == {1}


class _Largest(TorchDispatchMode):
    """Records the largest tensor that an operation gives with a dimension of the vocabulary or a tile of it beside one of tokens."""

    def __init__(self, hidden: int):
        super().__init__()
        self.hidden, self.shapes = hidden, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            # weights and their gradients are of the model's width, or flat
            if (
                isinstance(tensor, torch.Tensor)
                and tensor.ndim > 1
                and max(tensor.shape) > 1000
                and self.hidden not in tensor.shape
            ):
                self.shapes.add(tuple(tensor.shape))
        return result


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A tiny Gemma, whose logits are capped, with a vocabulary of more than one tile."""
    from transformers import AutoModelForCausalLM

    from cso_lab.training.backbone import load_tokenizer, prepare_backbone

    folder = tmp_path_factory.mktemp("wide")
    cfg = config(folder, "backbone=tiny_gemma")
    source, target = Path(prepare_backbone(cfg)), folder / "model"
    shutil.copytree(source, target)
    settings = json.loads((source / "config.json").read_text())
    assert settings["final_logit_softcapping"]
    model = AutoModelForCausalLM.from_pretrained(source)
    model.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    model.save_pretrained(target)
    load_tokenizer(cfg).save_pretrained(target)
    return target


@pytest.mark.long
@pytest.mark.parametrize("algo", ALGOS)
def test_logits_of_a_whole_tree_never_exist(shared, data, tmp_path, wide, algo):
    cfg = config(shared, "backbone=tiny_gemma", f"backbone.path={wide}", f"algo={algo}", "mode=full", "training.max_steps=1")
    cfg.training.max_prompt_length = 2000
    trainer, *_ = trainer_of(cfg, data, tmp_path)
    with _Largest(trainer.model.config.hidden_size) as largest:
        trainer.train()
    assert max(max(shape) for shape in largest.shapes) < VOCABULARY, "a whole row of logits"
    assert any(32768 in shape for shape in largest.shapes), "the tiles were not seen"
    # A tile is over scored tokens alone, which are fewer than the tokens computed.
    tokens = max(prod(shape) // 32768 for shape in largest.shapes if 32768 in shape)
    assert tokens < trainer.token_count.computed


def test_capped_logits_are_capped_where_only_the_asked_for_are_computed(shared):
    """The cap is low enough to change every value; both tile by tile and in the mean logits that SimPO and ORPO log."""
    from trl.trainer.utils import add_fused_lm_head

    from cso_lab.training.backbone import load_model
    from cso_lab.training.prefix_forest import share_prefixes

    model = load_model(config(shared, "backbone=tiny_gemma"))
    model.config.final_logit_softcapping = 0.05
    ids = torch.randint(10, 500, (3, 12), generator=torch.Generator().manual_seed(0))
    ids[1:, :6] = ids[0, :6]
    attended = torch.ones_like(ids)
    logits = model(ids, attention_mask=attended).logits[:, :-1]
    assert logits.abs().max() <= 0.05 and logits.abs().max() > 0.02
    expected = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    add_fused_lm_head(model, outputs=("log_probs", "mean_logits"))
    share_prefixes(model, 100, 1000)
    output = model(input_ids=ids, attention_mask=attended, labels=ids, fused_lm_head=True)
    torch.testing.assert_close(output.log_probs, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output.mean_logits, logits.mean(-1), rtol=1e-4, atol=1e-6)


def kept_activations(shared, data, out, algo, mode, checkpointing):
    """Returns the bytes of activations that the backward pass of one batch keeps, and the loss."""
    line = [
        f"algo={algo}",
        f"mode={mode}",
        f"training.gradient_checkpointing={checkpointing}",
        "training.max_prompt_length=2000",
    ]
    trainer, *_ = trainer_of(config(shared, *line), data, out)
    kept, weights = {}, {weight.data_ptr() for weight in trainer.model.parameters()}
    trainer.model.train()
    if trainer.args.gradient_checkpointing:
        trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return sum(kept.values()), float(loss.detach())


@pytest.mark.long
@pytest.mark.parametrize(("algo", "mode"), [("dpo", "lora"), ("orpo", "full")])
def test_checkpointed_layers_keep_their_inputs_over_a_tree_alone(shared, data, tmp_path, algo, mode):
    every, loss = kept_activations(shared, data, tmp_path / "every", algo, mode, "false")
    inputs, same = kept_activations(shared, data, tmp_path / "inputs", algo, mode, "true")
    assert same == pytest.approx(loss, rel=1e-6)
    assert inputs < every / 3
