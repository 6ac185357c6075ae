"""What a cell's training would take, shown by `estimate=true`, and compared with the device's memory before any stage runs."""

import os
import sys
from collections.abc import Iterator
from copy import deepcopy
from importlib.util import find_spec
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from cso_lab.config import CONF
from cso_lab.config.cells import rounds_of, start_of, zero_stage
from cso_lab.core.errors import UserError
from cso_lab.core.files import read_jsonl
from cso_lab.core.records import Dialogue, prompt_messages, supporter_message
from cso_lab.core.strategies import StrategySet
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.dataset import finished_dataset

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from cso_lab.training.chat_format import ChatFormat
    from cso_lab.training.estimate import TrainingEstimate
    from cso_lab.training.token_plan import TokenPlan
    from cso_lab.training.traced_pass import TracedPass

# Dispreferred replies a turn that are assumed where no dataset exists; the paper's ESC-Pro has 2.6.
_NEGATIVES = 3
# An estimate may be too high by this factor, and a run is not refused for that.
_ALLOWANCE = 1.15
# No estimate is made where a training fits by far: so many times the bytes of weights, gradients and optimizer states are less than this
# share of the memory.
_GENEROUS, _SHARE = 2, 1 / 4
_WEIGHT_BYTES, _TRAINED_BYTES = 4, 16
# The least tokens a tree that are advised.
_SMALL_TREE = 512


def print_training_estimate(cell: CellContext) -> None:
    """Prints memory, tokens and time of the cell's trainings, and runs nothing."""
    if rounds_of(cell.cfg) > 1:
        print(f"train: not estimated for rounds={rounds_of(cell.cfg)}; with rounds=1, that of the first round is")
        return
    trainings = _trainings(cell.cfg)
    for cfg in trainings:
        label = f"train {cfg.algorithm.name}" if len(trainings) > 1 else "train"
        if _writes_its_rows(cfg):
            print(f"{label}: not estimated for algo={cfg.algorithm.name}, which trains on replies that it writes itself")
        else:
            _print(label, cfg, Planner(CellContext(cfg, cell.folder)))


def _print(label: str, cfg: DictConfig, planner: "Planner") -> None:
    estimate, tokens = planner.estimate(cfg, planned_device(cfg)), planner.tokens(cfg)
    memory = estimate.memory
    # It takes most either while the backward pass begins or, with no activations, in the optimizer's step.
    working = f"the output layer's chunk: {_gb(estimate.head)}" if memory.activations else "of the optimizer's step"
    print(f"{label}: {estimate.parameters:,} parameters, {estimate.trained:,} of them or of their adapter trained")
    print(
        f"  memory of each of {cfg.hardware.processes} processes: {_gb(memory.total)} = weights {_gb(memory.weights)}"
        f" + gradients {_gb(memory.gradients)} + optimizer {_gb(memory.optimizer)} + activations {_gb(memory.activations)}"
        f" + working memory {_gb(memory.working)} ({working})"
        + (f" + libraries {_gb(memory.libraries)}" if memory.libraries else "")
    )
    print(
        f"  {tokens.rows:,} rows, {tokens.steps:,} steps, about {tokens.computed:,} tokens computed for {tokens.as_rows:,} as rows;"
        f" the largest pass has {tokens.at_once:,}, its largest tree {tokens.tree:,}"
    )
    if speed := _speed(cfg):
        flops, source = speed
        print(f"  about {_time(estimate.operations / flops / cfg.hardware.processes)} at {source}")
    for note in planner.notes:
        print(f"  {note}")


def print_local_generation_estimate(cell: CellContext) -> None:
    """Prints what generating the cell's replies in this process would take of tokens, memory and time, and runs nothing."""
    from cso_lab.generation.estimate import plan_generation

    cfg, notes = cell.cfg, []
    train, test = cell.measured_dialogues()
    chat = chat_or_stand_in(cfg, notes)
    plan = plan_generation(cfg, test, cell.strategies, train, model_config(cfg), chat, _generation_bytes(cfg))
    print(
        f"generate: {plan.turns:,} turns, about {plan.computed:,} prompt tokens computed for {plan.as_rows:,} as rows, at most"
        f" {plan.new:,} new ones"
    )
    print(
        f"  memory: weights {_gb(plan.weights)} + keys and values of at most {cfg.generation.batch_size} turns at once"
        f" {_gb(plan.cache)}, if every reply has generation.max_new_tokens={cfg.generation.max_new_tokens}"
    )
    if speed := _speed(cfg):
        flops, source = speed
        print(f"  at least {_time(plan.operations / flops)} at {source}; token by token a GPU does not reach it")
    for note in notes:
        print(f"  {note}")


def _speed(cfg: DictConfig) -> tuple[float, str] | None:
    """Returns (operations a second of a device, where the number is from); None if it is not given and there is no GPU."""
    from cso_lab.training.machine import device, matrix_product_speed

    if cfg.hardware.flops is not None:
        return cfg.hardware.flops, f"hardware.flops={cfg.hardware.flops:g}"
    if device(cfg) == "cpu":
        return None
    name, flops = matrix_product_speed()
    return flops, f"the {flops:.3g} operations a second that a product of bfloat16 matrices reached on this {name}"


def _generation_bytes(cfg: DictConfig) -> int:
    """Returns the bytes of a weight while replies are generated."""
    from cso_lab.training.machine import dtype

    planned, name = planned_device(cfg), cfg.generation.dtype
    if name == "auto" and planned == "cuda":
        return 2
    return 2 if dtype(name, planned) == "bfloat16" else 4


def check_memory(cell: CellContext, parameters: int, trained: int) -> None:
    """Raises UserError if a training of the cell cannot fit its device, with what would fit.

    `parameters` are the backbone's, `trained` those that are trained. Where they fit by far and `hardware.memory` is not given, no
    estimate is made; where none can be made, stderr says so.
    """
    try:
        problem = _first_problem(cell, parameters, trained)
    except Exception as error:  # what cannot be estimated may still be trained
        print(f"memory of the training not estimated: {type(error).__name__}: {error}", file=sys.stderr)
        return
    if problem:
        raise UserError(problem)


def _first_problem(cell: CellContext, parameters: int, trained: int) -> str | None:
    """Returns why a training of the cell does not fit, and what would; None if all fit."""
    available = _available(cell.cfg)
    by_far = _GENEROUS * (_WEIGHT_BYTES * parameters + _TRAINED_BYTES * trained) < _SHARE * available
    if by_far and cell.cfg.hardware.memory is None:
        return None
    estimated = [cfg for cfg in _trainings(cell.cfg) if not _writes_its_rows(cfg)]
    problems = (_problem(CellContext(cfg, cell.folder), available) for cfg in estimated)
    return next(filter(None, problems), None)


def _problem(cell: CellContext, available: float) -> str | None:
    """Returns why the training of the cell's configuration does not fit `available` bytes, and what would; None if it fits."""
    from cso_lab.training.machine import device

    planner, cfg, kind = Planner(cell), cell.cfg, device(cell.cfg)
    needed = planner.estimate(cfg, kind).memory.total
    if needed <= available * _ALLOWANCE:
        return None
    fitting = (words for words, other in alternatives(cfg, kind) if planner.estimate(other, kind).memory.total <= available)
    advice = next(fitting, None)
    advice = f"{advice} would fit" if advice else "no setting tried here would fit: take a smaller backbone"
    given = f"hardware.memory={cfg.hardware.memory:g}" if cfg.hardware.memory is not None else f"this {_DEVICES[kind]}"
    return (
        f"algo={cfg.algorithm.name} mode={cfg.finetune_mode.name}: the training needs about {_gb(needed)} a process, and {given} has"
        f" {_gb(available)}: {advice}"
    )


_DEVICES = {"cpu": "machine", "cuda": "GPU"}


def _available(cfg: DictConfig) -> float:
    """Returns the bytes of memory of a device: of a process that trains."""
    from cso_lab.training.machine import device

    if cfg.hardware.memory is not None:
        return cfg.hardware.memory * 1e9
    if device(cfg) == "cpu":
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return machine / (cfg.hardware.processes // cfg.hardware.nodes)
    import torch

    return torch.cuda.get_device_properties(0).total_memory


def alternatives(cfg: DictConfig, device: str) -> Iterator[tuple[str, DictConfig]]:
    """Yields settings that take less memory, as they are typed, with the configuration: the least change first."""
    saved: dict[str, object] = {}
    words, saving = [], cfg
    for values in _savings(cfg):
        saved |= values
        words, saving = [f"{key}={_typed(value)}" for key, value in saved.items()], _changed(cfg, saved)
        yield " ".join(words), saving
    for mode in _smaller_modes(cfg, device):
        node = OmegaConf.load(CONF / "mode" / "lora.yaml")
        if mode == "qlora":
            node = OmegaConf.merge(node, OmegaConf.load(CONF / "mode" / "qlora.yaml"))
        values = {f"finetune_mode.{key}": node[key] for key in ("name", "peft", "quantization") if key in node}
        yield f"mode={mode}", _changed(cfg, values)
        yield " ".join([f"mode={mode}", *words]), _changed(saving, values)
    if device == "cpu" and cfg.hardware.memory is None:
        return  # all processes are in the memory of this machine
    for stage, offload, processes in _shared_out(cfg):
        values = {
            "hardware.deepspeed": {"zero_optimization": {"stage": stage}},
            "hardware.processes": processes,
            "hardware.offload": offload,
        }
        offloading = ["hardware.offload=true"] if offload else []
        yield (
            " ".join([f"hardware=zero{stage} hardware.processes={processes}", *offloading, *words]),
            _changed(saving, values),
        )


def _savings(cfg: DictConfig) -> Iterator[dict[str, object]]:
    """Yields settings that trade time for memory, to be taken one after the other."""
    training = cfg.training
    if training.gradient_checkpointing is not True:
        yield {"training.gradient_checkpointing": True}
    if not training.share_prefixes:
        return
    if training.max_activation_tokens > training.tokens_per_tree:
        yield {"training.max_activation_tokens": training.tokens_per_tree}
    if training.tokens_per_tree > _SMALL_TREE:
        yield {"training.tokens_per_tree": _SMALL_TREE, "training.max_activation_tokens": _SMALL_TREE}


def _smaller_modes(cfg: DictConfig, device: str) -> Iterator[str]:
    quantized = cfg.finetune_mode.get("quantization") is not None
    if cfg.finetune_mode.peft is None:
        yield "lora"
    if not quantized and zero_stage(cfg) != 3 and (device == "cuda" or find_spec("bitsandbytes")):
        yield "qlora"


def _shared_out(cfg: DictConfig) -> Iterator[tuple[int, bool, int]]:
    """Yields (stage of ZeRO, whether optimizer states are offloaded, processes) that share out what the training holds."""
    full = cfg.finetune_mode.peft is None
    stages = (2,) if cfg.finetune_mode.get("quantization") is not None else (2, 3)
    for offload in (False, True) if full else (False,):
        for stage in stages:
            for processes in (2, 4, 8, 16):
                if processes >= cfg.hardware.processes and cfg.training.batch_size % processes == 0:
                    yield stage, offload, processes


def _changed(cfg: DictConfig, values: dict[str, object]) -> DictConfig:
    cfg = deepcopy(cfg)
    OmegaConf.set_struct(cfg, False)
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, merge=False)
    return cfg


def _typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _trainings(cfg: DictConfig) -> list[DictConfig]:
    """Returns the configurations of the cell's training and, before it, of those that it starts from."""
    start = start_of(cfg)
    return [*([] if start is None else _trainings(start)), cfg]


def _writes_its_rows(cfg: DictConfig) -> bool:
    from cso_lab.training.rows import PROMPTS

    return cfg.algorithm.rows == PROMPTS


def planned_device(cfg: DictConfig) -> str:
    """Returns the device that an estimate is for: the paper's backbones are planned for GPUs, also on a machine without one."""
    from cso_lab.training.machine import device
    from cso_lab.training.shapes import published_config

    return "cuda" if cfg.hardware.device != "cpu" and published_config(str(cfg.backbone.path)) else device(cfg)


class Planner:
    """Estimates the training of a cell's configuration, also with other settings of training, mode and hardware.

    `notes` say what is assumed. Raises UserError if model or data cannot be read.
    """

    def __init__(self, cell: CellContext):
        from cso_lab.training.backbone import quiet_libraries

        quiet_libraries()
        self.notes: list[str] = []
        self.config = model_config(cell.cfg)
        self.chat = chat_or_stand_in(cell.cfg, self.notes)
        self._rows = self._read_rows(cell)
        self._plans: dict[int, TokenPlan] = {}
        self._traces: dict[tuple, TracedPass] = {}

    def tokens(self, cfg: DictConfig) -> "TokenPlan":
        """Returns the tokens of `cfg`'s training; with more processes than the cell's, as if a process still took as many."""
        from cso_lab.training.token_plan import plan_tokens

        key = cfg.training.tokens_per_tree
        if key not in self._plans:
            self._plans[key] = plan_tokens(cfg, self._rows, self.chat)
        return self._plans[key]

    def estimate(self, cfg: DictConfig, device: str) -> "TrainingEstimate":
        """Returns what `cfg`'s training takes on the device."""
        from cso_lab.training.estimate import estimate_training

        return estimate_training(cfg, self.config, self.tokens(cfg), device, self._traces)

    def _read_rows(self, cell: CellContext) -> list[dict]:
        name = cell.cfg.algorithm.rows
        try:
            return read_jsonl(finished_dataset(cell) / "preferences" / f"{name}.jsonl")
        except UserError:
            dialogues = cell.searched_dialogues() or cell.dialogues()[1]
            self.notes.append(
                f"there is no dataset yet: rows are assumed from {len(dialogues):,} dialogues of the corpus, with {_NEGATIVES}"
                " dispreferred replies to each of their turns"
            )
            return assumed_rows(dialogues, cell.strategies)[name]


def model_config(cfg: DictConfig) -> "PretrainedConfig":
    """Returns the configuration of the backbone, that of a backbone of the paper without the hub."""
    from transformers import AutoConfig

    from cso_lab.training.backbone import prepare_backbone
    from cso_lab.training.shapes import published_config

    return published_config(str(cfg.backbone.path)) or AutoConfig.from_pretrained(prepare_backbone(cfg))


def chat_or_stand_in(cfg: DictConfig, notes: list[str]) -> "ChatFormat":
    """Returns the backbone's chat format, or for a backbone of the paper that cannot be read here SmolLM2's, which `notes` then say."""
    from cso_lab.training.backbone import load_chat_format
    from cso_lab.training.shapes import published_config

    try:
        return load_chat_format(cfg)
    except UserError:
        if published_config(str(cfg.backbone.path)) is None:
            raise
    smollm2 = OmegaConf.load(CONF / "backbone" / "smollm2.yaml")
    backbone = {"name": smollm2.name, "path": None, "gguf": smollm2.gguf}
    notes.append("tokens are those of SmolLM2's tokenizer, since the backbone's own cannot be read here")
    return load_chat_format(OmegaConf.create({"backbone": backbone, "shared_dir": cfg.shared_dir}))


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


def _time(seconds: float) -> str:
    return f"{seconds / 3600:,.2f} hours" if seconds >= 3600 else f"{seconds / 60:,.1f} minutes"


def _gb(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"
