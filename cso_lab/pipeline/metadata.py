"""The description of a cell in metrics.json: its choices, and the context in which its numbers were computed."""

from pathlib import Path
from urllib.parse import urlsplit

from omegaconf import DictConfig, OmegaConf

from cso_lab.config import CONF
from cso_lab.config.cells import (
    algorithm_label,
    algorithm_name,
    is_api,
    rounds_of,
    start_node,
    start_of,
    starts_from_previous_round,
    starts_server,
    trains,
)
from cso_lab.config.model_names import model_label, model_slug, other_path
from cso_lab.core.files import read_json
from cso_lab.pipeline.cell_names import cell_name, config_hash, uses_seed, varied
from cso_lab.pipeline.run_record import RunRecord, typed_overrides
from cso_lab.tracking import TrackedCell


def cell_metadata(cfg: DictConfig) -> dict:
    """Returns the choices that make it this cell; the report groups and names cells by them."""
    trained, label = trains(cfg), cfg.algorithm.label
    if trained and rounds_of(cfg) > 1:
        label = f"On-policy {label}" if rounds_of(cfg) == 2 else f"On-policy {label} ({rounds_of(cfg)} rounds)"
    start = cfg.algorithm if trained and starts_from_previous_round(cfg) else start_node(cfg.algorithm)
    return {
        "backbone": cfg.backbone.name,
        "label": model_label(cfg),
        "family": None if is_api(cfg) else cfg.backbone.family,
        "algo": cfg.algorithm.name,
        "algo_label": label,
        "mode": cfg.finetune_mode.name if trained else None,
        "mode_label": cfg.finetune_mode.label if trained else None,
        "start_from": "base" if start is None else algorithm_name(start),
        "start_label": None if start is None else algorithm_label(start),
        "decoding": cfg.decoding.name,
        "decoding_label": cfg.decoding.label,
        "seed": cfg.seed if uses_seed(cfg) else None,
        "variant": config_hash(cfg),
        "varied": varied(cfg, typed_overrides()),
    }


def context(cfg: DictConfig, record: RunRecord) -> dict:
    """Returns the data, test set, role players, training and server behind the numbers, as far as the cell has them."""
    trained = trains(cfg)
    data = {"data": cfg.data.name, "constrain": cfg.generation.constrain, "max_new_tokens": cfg.generation.max_new_tokens}
    data["testset"] = cfg.evaluation.testset
    if cfg.generation.dialogues != "test":
        data["measured_on"] = f"{cfg.generation.dialogues} dialogues, held out from training to choose settings on"
    data |= _chosen_files(cfg.data)
    if path := other_path(cfg):
        data["path"] = path
    if cfg.generation.engine == "server":
        data |= _served(cfg, record.folder)
    if not trained:
        return data
    file = record.stage_folder("train") / "training.json"
    training = read_json(file) if file.exists() else {}
    if start := start_of(cfg):
        first = training
        while "previous_round" in first:
            first = first["previous_round"]
        before = first.get("start") or {}
        data["start_training_rows"] = before.get("rows")
        data["start_training_steps"] = f"{before.get('steps')} of {start.training.batch_size} rows"
    if rounds_of(cfg) > 1:
        data |= {"rounds": rounds_of(cfg), "round_start": cfg.round_start}
    return data | {
        "roles": cfg.roles.name,
        "roles_notice": cfg.roles.notice,
        "mcts": cfg.mcts.name,
        "preferences": cfg.preferences.name,
        "preference_dialogues": _dialogues_used(record),
        "training_rows": training.get("rows"),
        "training_steps": f"{training.get('steps')} of {cfg.training.batch_size} rows",
    }


def _chosen_files(data: DictConfig) -> dict:
    """Returns the files, with their revision, that were chosen from a folder or a data set on the hub; {} if files were named."""
    from cso_lab.corpora import data_source, test_source

    sources = {"data_file": data_source(data), "test_file": test_source(data)}
    return {key: str(source) for key, source in sources.items() if source and source.within}


def _dialogues_used(record: RunRecord) -> int | None:
    """Returns the number of expanded dialogues (valid paths) the cell was trained on, the axis of Figure 4; None if unknown."""
    file = record.stage_folder("dataset") / "statistics.json"
    return read_json(file)["table5"]["per_path"]["all"]["dialogues"] if file.exists() else None


def _served(cfg: DictConfig, folder: Path) -> dict:
    """Returns the model that a server runs, the server's address if it is not a provider's default, and the usage."""
    client, file = cfg.generation.client, folder / "usage.json"
    summary, own = read_json(file) if file.exists() else {}, starts_server(cfg)
    usage, shortened = summary.get("usage"), summary.get("shortened", {}).get("prompts")
    used = usage and {
        "calls": sum(usage["calls"].values()),
        "tokens": usage["prompt_tokens"] + usage["completion_tokens"],
        "dollars": "unknown" if usage["unpriced"] else round(usage["cost"], 6),
    }
    # Without what may stand before the host: a user name, a password.
    address = client.api_base and urlsplit(client.api_base).netloc.rpartition("@")[2]
    model = f"{cfg.serving.name}, started by the run" if own else client.model
    return {"served": model, "served_at": address, "usage": used} | ({"shortened_prompts": shortened} if shortened else {})


def tracked_cell(cfg: DictConfig, folder: Path) -> TrackedCell:
    """Returns the cell as trackers show it: grouped by its sweep, tagged by backbone, algorithm and mode."""
    mode = [cfg.finetune_mode.name] if trains(cfg) else []
    return TrackedCell(
        name=cell_name(cfg),
        folder=Path(folder),
        group=_group(cfg, Path(folder)),
        tags=(model_slug(cfg), cfg.algorithm.name, *mode),
        config=_without_credentials(OmegaConf.to_container(cfg, resolve=True)) | {"cell": cell_metadata(cfg)},
        table=None if cfg.report.table is None else str(cfg.report.table),
        rerun=bool(cfg.rerun),
    )


def _group(cfg: DictConfig, folder: Path) -> str:
    """Returns the sweep's name where it has one of its own (table9, demo), else the name of the folder that its cells are in."""
    unnamed = OmegaConf.load(CONF / "config.yaml").sweep
    return folder.resolve().parent.name if cfg.sweep == unnamed else str(cfg.sweep)


def _without_credentials(value: object) -> object:
    """Returns `value` with user name and password removed from every address in it."""
    if isinstance(value, dict):
        return {key: _without_credentials(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_without_credentials(child) for child in value]
    if isinstance(value, str) and "://" in value and "@" in (place := urlsplit(value).netloc):
        return value.replace(place, place.rpartition("@")[2], 1)
    return value
