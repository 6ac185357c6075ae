"""Exports a run's model: the weights that its replies were generated with, or its adapter unmerged."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from cso_lab.config.cells import is_api, starts_server, trains
from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, write_json
from cso_lab.core.records import SEEKER, Turn, prompt_messages, system_prompt
from cso_lab.core.strategies import strategy_set
from cso_lab.export import facts
from cso_lab.export.base import Base, base_model
from cso_lab.export.card import write_card
from cso_lab.export.folder import check_free, new_folder
from cso_lab.generation.local import reply_ends
from cso_lab.generation.run_folder import run_checkpoint, run_configuration, run_model
from cso_lab.reporting.rows import method_name
from cso_lab.training.backbone import START, device, load_base, load_tokenizer, load_weights, resolve_dtype
from cso_lab.training.chat_format import ChatFormat, fold_system
from cso_lab.training.quantization import is_quantized

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

    from cso_lab.reporting.cells import Cell

# Subfolder of an exported adapter with the model it belongs to, where that is no model of the hub.
BASE = "base"
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
_EXAMPLE = "I had a hard week, and I do not know what to do."
_TAGS = ["cso_lab", "emotional-support"]


def export_model(run: Path, out: Path, overrides: Sequence[str] = ()) -> None:
    """Writes the run's model to the folder `out`: an adapter merged, a full model or an untrained base as it is.

    The weights have the values and the number type with which the run generates, bit for bit, so that greedy replies and the card's numbers
    are theirs. Weights that are quantized in the run are written as the values they stand for, before the adapter is merged: the same model
    with other rounding. Raises UserError if the run has no model on this machine, or `out` is not empty.
    """
    check_free(out)
    cfg = _configuration(run, overrides)
    loaded, checkpoint = run_model(cfg, run)
    with new_folder(out) as folder:
        chat = _save(loaded, load_weights(loaded, checkpoint, _dtype(cfg, run)), folder)
        _write_card(cfg, run, folder, chat, "model")


def export_adapter(run: Path, out: Path, overrides: Sequence[str] = ()) -> None:
    """Writes the run's adapter to the folder `out`, unmerged, in PEFT's form.

    adapter_config.json names the base by its hub id. A base that is not the hub's own (converted from GGUF, random, quantized, a local
    folder, or the result of an earlier training) is saved in `out`/base, and adapter_config.json names that folder.
    Raises UserError if the run has no adapter on this machine, or `out` is not empty.
    """
    check_free(out)
    cfg = _configuration(run, overrides)
    _, checkpoint = run_model(cfg, run)
    if checkpoint is None:
        why = (
            f"mode={cfg.finetune_mode.name} trains every weight" if trains(cfg) else f"algo={cfg.algorithm.name} trains nothing"
        )
        raise UserError(f"{run} has no adapter ({why}): leave out --adapter")
    with new_folder(out) as folder:
        for name in _ADAPTER_FILES:
            shutil.copyfile(checkpoint / name, folder / name)
        start, hub_id = checkpoint / START, base_model(cfg).hub_id
        own_base = hub_id is None or start.is_dir() or is_quantized(cfg)
        if own_base:
            (folder / BASE).mkdir()
            base = load_base(cfg, start if start.is_dir() else None, _dtype(cfg, run), whole=True)
            chat = _save(cfg, base, folder / BASE)
        else:
            chat = _chat_format(cfg)
        chat.tokenizer.save_pretrained(folder)
        config = read_json(folder / "adapter_config.json")
        write_json(folder / "adapter_config.json", config | {"base_model_name_or_path": BASE if own_base else hub_id})
        _write_card(cfg, run, folder, chat, "adapter", own_base)


def _configuration(run: Path, overrides: Sequence[str]) -> DictConfig:
    cfg = run_configuration(run, overrides)
    if is_api(cfg) or (cfg.generation.engine == "server" and not starts_server(cfg)):
        raise UserError(
            f"{run}: {cfg.backbone.name} is asked over HTTP, and its weights are not here: give a run of a local model"
        )
    return cfg


def _dtype(cfg: DictConfig, run: Path) -> "torch.dtype":
    """Returns the number type with which the run generates; "auto" is what it was when the run trained, perhaps on another machine."""
    name = cfg.generation.dtype
    if name == "auto" and cfg.training.dtype == "auto":
        name = _training(cfg, run).get("dtype", name)
    return resolve_dtype(name, device(cfg))


def _training(cfg: DictConfig, run: Path) -> dict:
    """Returns the training.json beside the run's checkpoint, {} if there is none."""
    file = run_checkpoint(run).with_name("training.json") if trains(cfg) else None
    return read_json(file) if file and file.is_file() else {}


def _chat_format(cfg: DictConfig) -> ChatFormat:
    return ChatFormat(load_tokenizer(cfg))


def _save(cfg: DictConfig, model: "PreTrainedModel", folder: Path) -> ChatFormat:
    """Saves a model with tokenizer and generation configuration; returns how its prompts are rendered."""
    chat = _chat_format(cfg)
    model.generation_config = _generation_config(cfg, model, chat.tokenizer)
    model.save_pretrained(folder)
    chat.tokenizer.save_pretrained(folder)
    return chat


def _generation_config(cfg: DictConfig, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> "GenerationConfig":
    """Returns the run's decoding: without the base's own sampling and penalties, and with every token that ends a reply."""
    from transformers import GenerationConfig

    temperature = cfg.generation.temperature
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {"do_sample": False}
    )
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(reply_ends(model.generation_config, tokenizer)),
        pad_token_id=tokenizer.pad_token_id,
        **sampling,
    )


def _write_card(cfg: DictConfig, run: Path, folder: Path, chat: ChatFormat, kind: str, own_base: bool = False) -> None:
    base, cell, trained = base_model(cfg), facts.measured(run), trains(cfg)
    strategies = strategy_set(cfg.data.strategies)
    messages = prompt_messages([Turn(SEEKER, _EXAMPLE)], strategies)
    prompt, chat_messages = chat.prompt(messages), _template_messages(chat, messages)
    name = ", ".join([base.name, *([_method(cfg, cell)] if trained else ["untrained"])])
    training = _training(cfg, run)
    statistics = facts.dataset_statistics(run) if trained else {}
    write_card(
        folder,
        "model",
        _metadata(cfg, base, cell, kind, name),
        name=name,
        kind=kind,
        base=base,
        own_base=own_base,
        trained=trained,
        quantized=is_quantized(cfg),
        merged=trained and cfg.finetune_mode.get("peft") is not None,
        corpus=facts.corpus(cfg),
        rows=statistics.get("rows", {}),
        dialogues=statistics.get("table5", {}).get("per_path", {}).get("all", {}).get("dialogues"),
        players=facts.players(cfg),
        search=cfg.mcts.name,
        notices=facts.notices(cfg) if trained else [],
        sample=facts.is_sample(cfg),
        trainings=facts.trainings(cfg, training) if trained else [],
        numbers=facts.numbers(cell) if cell else None,
        cell=cell,
        data_name=cfg.data.name,
        testset=cfg.evaluation.testset,
        constrain=cfg.generation.constrain,
        decoding=None if cfg.decoding.name == "plain" else cfg.decoding.label,
        temperature=cfg.generation.temperature,
        max_new_tokens=cfg.generation.max_new_tokens,
        system_prompt=system_prompt(strategies),
        folds_system=chat.folds_system,
        messages=json.dumps(chat_messages, ensure_ascii=False, indent=4),
        prompt_literal=json.dumps(prompt, ensure_ascii=False),
        template_renders=_plain_render(chat, chat_messages) == prompt,
        attention=cfg.backbone.attn_implementation,
        versions=facts.versions(run),
    )


def _method(cfg: DictConfig, cell: "Cell | None") -> str:
    method = cfg.algorithm.label if cell is None else method_name(cell)
    return f"{method} ({cfg.finetune_mode.label})"


def _template_messages(chat: ChatFormat, messages: list[dict[str, str]]) -> list[dict[str, str]]:
    return fold_system(messages) if chat.folds_system else messages


def _plain_render(chat: ChatFormat, messages: list[dict[str, str]]) -> str:
    """Returns what the chat template makes of the messages without any switch, as a server renders it."""
    tokenizer = chat.tokenizer
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    adds_bos = tokenizer.bos_token_id is not None and tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if adds_bos else text


def _metadata(cfg: DictConfig, base: Base, cell: "Cell | None", kind: str, name: str):
    from huggingface_hub import EvalResult, ModelCardData

    trained, datasets = trains(cfg), [hub_id for hub_id in [facts.hub_data(cfg)] if hub_id]
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=cfg.data.name,
            dataset_name=f"{cfg.data.name}, {cell.n} test turns",
            metric_type=metric,
            metric_name=metric,
            metric_value=round(value, 2),
        )
        for metric, value in (cell.scores.items() if cell else ())
    ]
    return ModelCardData(
        base_model=base.hub_id,
        datasets=datasets if trained and datasets else None,
        eval_results=results or None,
        language="en" if facts.is_sample(cfg) else None,
        library_name="peft" if kind == "adapter" else "transformers",
        license=base.licence,
        model_name=name,
        pipeline_tag="text-generation",
        tags=[*_TAGS, *([cfg.algorithm.name, cfg.finetune_mode.name] if trained else [])],
    )
