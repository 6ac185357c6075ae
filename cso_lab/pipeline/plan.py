"""What a cell's training would take, shown by `estimate=true`, and compared with the device's memory before any stage runs."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from cso_lab.config import CONF
from cso_lab.core.errors import UserError
from cso_lab.core.files import read_jsonl
from cso_lab.core.records import Dialogue, prompt_messages, supporter_message
from cso_lab.core.strategies import StrategySet
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.dataset import finished_dataset

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from cso_lab.training.estimate import TrainingEstimate
    from cso_lab.training.token_plan import TokenPlan

# Dispreferred replies a turn that are assumed where no dataset exists; the paper's ESC-Pro has 2.6.
_NEGATIVES = 3
# An estimate may be too high by this factor, and a run is not refused for that.
_ALLOWANCE = 1.15


def print_training_estimate(cell: CellContext) -> None:
    """Prints memory, tokens and time of the cell's training, and runs nothing."""
    cfg = cell.cfg
    config, tokens, notes = _inputs(cell)
    estimate = _estimate(cfg, config, tokens)
    memory = estimate.memory
    print(f"train: {estimate.parameters:,} parameters, {estimate.trained:,} of them or of their adapter trained")
    print(
        f"  memory of each of {cfg.hardware.processes} processes: {_gb(memory.total)} = weights {_gb(memory.weights)}"
        f" + gradients {_gb(memory.gradients)} + optimizer {_gb(memory.optimizer)} + activations {_gb(memory.activations)}"
        f" + working memory {_gb(memory.working)} (the output layer's chunk: {_gb(estimate.head)})"
    )
    print(
        f"  {tokens.rows:,} rows, {tokens.steps:,} steps, about {tokens.computed:,} tokens computed for {tokens.as_rows:,} as rows;"
        f" the largest pass has {tokens.at_once:,}, its largest tree {tokens.tree:,}"
    )
    if cfg.hardware.flops is not None:
        hours = estimate.operations / cfg.hardware.flops / cfg.hardware.processes / 3600
        print(f"  about {hours:,.2f} hours at hardware.flops={cfg.hardware.flops:g}")
    for note in notes:
        print(f"  {note}")


def check_memory(cell: CellContext) -> None:
    """Raises UserError if the cell's training cannot fit its device, with what would fit.

    It is looked at where `hardware.memory` is given or there is a GPU. Where model or data cannot be read yet, nothing is said.
    """
    available = _available(cell.cfg)
    if available is None:
        return
    try:
        config, tokens, _ = _inputs(cell)
    except (UserError, OSError):
        return
    needed = _estimate(cell.cfg, config, tokens).memory.total
    if needed <= available * _ALLOWANCE:
        return
    fitting = (words for words, cfg in _alternatives(cell.cfg) if _estimate(cfg, config, tokens).memory.total <= available)
    advice = next(fitting, None)
    advice = f"{advice} would fit" if advice else "no setting tried here would fit: take a smaller backbone"
    raise UserError(f"the training needs about {_gb(needed)} of a device, which has {_gb(available)}: {advice}")


def _available(cfg: DictConfig) -> float | None:
    """Returns the bytes of a device; None if they are not given and there is no GPU."""
    from cso_lab.training.machine import device

    if cfg.hardware.memory is not None:
        return cfg.hardware.memory * 1e9
    if device(cfg) == "cpu":
        return None
    import torch

    return torch.cuda.get_device_properties(0).total_memory


def _alternatives(cfg: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """Yields settings that take less memory, as they are typed, with the configuration: the least change first."""

    def changed(base: DictConfig, **values: object) -> DictConfig:
        copy = base.copy()
        for key, value in values.items():
            OmegaConf.update(copy, key.replace("__", "."), value)
        return copy

    saving = changed(cfg, training__gradient_checkpointing=True)
    words = "training.gradient_checkpointing=true"
    yield words, saving
    one_tree = changed(saving, training__max_activation_tokens=cfg.training.tokens_per_tree)
    words += f" training.max_activation_tokens={cfg.training.tokens_per_tree}"
    yield words, one_tree
    if cfg.finetune_mode.peft is None:
        lora = OmegaConf.load(CONF / "mode" / "lora.yaml").peft
        yield f"mode=lora {words}", changed(one_tree, finetune_mode__peft=lora)
    for stage in (2, 3):
        zero = {"zero_optimization": {"stage": stage}}
        for processes in (2, 4, 8, 16):
            if cfg.training.batch_size % processes == 0:
                yield (
                    f"hardware=zero{stage} hardware.processes={processes} {words}",
                    changed(one_tree, hardware__deepspeed=zero, hardware__processes=processes),
                )


def _estimate(cfg: DictConfig, config: "PretrainedConfig", tokens: "TokenPlan") -> "TrainingEstimate":
    from cso_lab.training.estimate import estimate_training
    from cso_lab.training.machine import device
    from cso_lab.training.shapes import published_config

    # The paper's backbones are planned for GPUs, also on a machine without one.
    planned = "cuda" if cfg.hardware.device != "cpu" and published_config(str(cfg.backbone.path)) else device(cfg)
    return estimate_training(cfg, config, tokens, planned)


def _inputs(cell: CellContext) -> tuple["PretrainedConfig", "TokenPlan", list[str]]:
    """Returns the model's configuration, the training's tokens, and what is assumed. Raises UserError if a model cannot be read."""
    from transformers import AutoConfig

    from cso_lab.training.backbone import load_chat_format, prepare_backbone, quiet_libraries
    from cso_lab.training.shapes import published_config
    from cso_lab.training.token_plan import plan_tokens

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    quiet_libraries()
    cfg, notes = cell.cfg, []
    config = published_config(str(cfg.backbone.path))
    if config is None:
        config = AutoConfig.from_pretrained(prepare_backbone(cfg))
    try:
        chat = load_chat_format(cfg)
    except UserError:
        if published_config(str(cfg.backbone.path)) is None:
            raise
        smollm2 = OmegaConf.load(CONF / "backbone" / "smollm2.yaml")
        stand_in = OmegaConf.create(
            {"backbone": {"name": smollm2.name, "path": None, "gguf": smollm2.gguf}, "shared_dir": cfg.shared_dir}
        )
        chat = load_chat_format(stand_in)
        notes.append("tokens are those of SmolLM2's tokenizer, since the backbone's own cannot be read here")
    try:
        rows = read_jsonl(finished_dataset(cell) / "preferences" / f"{cfg.algorithm.rows}.jsonl")
    except UserError:
        dialogues = cell.searched_dialogues() or cell.dialogues()[1]
        rows = assumed_rows(dialogues, cell.strategies)[cfg.algorithm.rows]
        notes.append(
            f"there is no dataset yet: rows are assumed from {len(dialogues):,} dialogues of the corpus, with {_NEGATIVES} dispreferred"
            " replies to each of their turns"
        )
    return config, plan_tokens(cfg, rows, chat), notes


def assumed_rows(dialogues: list[Dialogue], strategies: StrategySet) -> dict[str, list[dict]]:
    """Returns {pairs, sft, kto}: rows as a search of these dialogues may leave them; other turns of the corpus are the dispreferred."""
    from cso_lab.preferences.rows import kto_rows

    turns = [
        (dialogue, index) for dialogue in dialogues for index in dialogue.supporter_turns() if dialogue.turns[index].strategy
    ]
    pairs, sft = [], []
    for number, (dialogue, index) in enumerate(turns):
        reply = [supporter_message(dialogue.turns[index])]
        row = {"prompt": prompt_messages(dialogue.turns[:index], strategies), "dialogue": dialogue.id}
        sft.append({**row, "completion": reply})
        for step in range(1, _NEGATIVES + 1):
            other, place = turns[(number + 17 * step) % len(turns)]
            rejected = other.turns[place]
            pairs.append(
                {
                    **row,
                    "chosen": reply,
                    "rejected": [supporter_message(rejected)],
                    "chosen_strategy": dialogue.turns[index].strategy,
                    "rejected_strategy": rejected.strategy,
                }
            )
    return {"pairs": pairs, "sft": sft, "kto": kto_rows(pairs)}


def _gb(count: float) -> str:
    return f"{count / 1e9:,.2f} GB"
