"""What the cards say of a run: its data, role players, trainings and numbers, without the paths and addresses of this machine."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from omegaconf import DictConfig, OmegaConf

from cso_lab.config import CONF
from cso_lab.config.cells import algorithm_label, expanded, previous_round, rounds_of, start_of, starts_from_previous_round
from cso_lab.core.files import read_json
from cso_lab.core.run_folders import stage_folder
from cso_lab.core.tables import NONE, markdown_table
from cso_lab.corpora.source import on_hub
from cso_lab.reporting.cells import METRICS, METRICS_FILE, Cell, load_cells

_ROLES = ("seeker", "supporter", "strategist", "judge")
_TRAINING = (
    *("learning_rate", "num_train_epochs", "max_steps", "batch_size", "lr_scheduler_type", "warmup_ratio", "weight_decay"),
    *("max_grad_norm", "optim", "max_prompt_length", "max_target_length", "max_rows", "seed"),
)
# Keys of an algorithm that name it or its classes and are no hyperparameters.
_NOT_HYPERPARAMETERS = {"name", "label", "recipe", "rows", "start", "trainer", "arguments", "training"}
# How the path of a folder begins: /..., ~..., ./..., C:\...
_FOLDER = re.compile(r"[/~.\\]|[A-Za-z]:[/\\]")
_METRIC_NAMES = {
    "Q": "Q, macro F1 of the strategies, %",
    "B": "B, preference bias (0 is best)",
    "Q_W": "Q_W, weighted F1, %",
    "R-L": "R-L, ROUGE-L, %",
}


def without_folders(name: object) -> str:
    """Returns the name of a model or file; of one that lies in a folder of this machine, only the last part.

    A server may call a model by its folder, as in openai//home/NAME/model.
    """
    text = str(name)
    if _FOLDER.match(text):
        return _last_part(text)
    provider, _, rest = text.partition("/")
    return f"{provider}/{_last_part(rest)}" if _FOLDER.match(rest) else text


def corpus(cfg: DictConfig) -> str:
    """Returns the corpus of a run in words: its name, and its file or its data set on the hub."""
    path = str(cfg.data.path)
    if is_sample(cfg):
        return "the sample corpus of cso_lab: fictional English dialogues written for the project"
    where = path if on_hub(path) else f"file {_last_part(path)}"
    return f"{cfg.data.name} ({where})"


def is_sample(cfg: DictConfig) -> bool:
    """Returns whether the data are the sample corpus that comes with the project."""
    return str(cfg.data.path) == OmegaConf.load(CONF / "data" / "sample.yaml").path


def hub_data(cfg: DictConfig) -> str | None:
    """Returns the id of the run's corpus on the hub, None if it is a file."""
    from cso_lab.corpora.hub import hub_name

    path = str(cfg.data.path)
    return hub_name(path).repository if on_hub(path) else None


def players(cfg: DictConfig) -> list[str]:
    """Returns one line a role, "seeker: NAME"; [] if the data were expanded before and nobody played a role."""
    if expanded(cfg):
        return []
    return [f"{role}: {without_folders(cfg.roles[role].model)}" for role in _ROLES]


def notices(cfg: DictConfig) -> list[str]:
    """Returns what is simulated, in sentences."""
    if expanded(cfg) or not cfg.roles.notice:
        return []
    return [f"The preference data were {cfg.roles.notice}."]


def read_statistics(dataset: Path | None) -> dict:
    """Returns a dataset's statistics.json, {} if it is not here."""
    file = dataset / "statistics.json" if dataset else None
    return read_json(file) if file and file.is_file() else {}


def dataset_statistics(run: Path) -> dict:
    """Returns statistics.json of the dataset of a run, {} if it is not here."""
    return read_statistics(stage_folder(run, "dataset"))


def trainings(cfg: DictConfig, training: Mapping) -> list[tuple[str, str]]:
    """Returns (name, table of its hyperparameters) of the cell's training and, before it, of the one it starts from.

    `training` is the content of training.json.
    """
    if starts_from_previous_round(cfg):
        start, earlier = previous_round(cfg), "previous_round"
    else:
        start, earlier = start_of(cfg), "start"
    before = trainings(start, training.get(earlier) or {}) if start is not None else []
    several = f", round {rounds_of(cfg)}" if rounds_of(cfg) > 1 else ""
    name = f"{algorithm_label(cfg.algorithm)}, {cfg.finetune_mode.label}{several}"
    rows = [[key, str(value)] for key, value in _hyperparameters(cfg, training)]
    return [*before, (name, markdown_table(["hyperparameter", "value"], rows))]


def _hyperparameters(cfg: DictConfig, training: Mapping) -> Iterator[tuple[str, object]]:
    for key, value in cfg.algorithm.items():
        if key not in _NOT_HYPERPARAMETERS:
            yield key, value
    for key in _TRAINING:
        if cfg.training.get(key) is not None:
            yield key, cfg.training[key]
    for node, name in (("peft", "adapter"), ("quantization", "quantization")):
        for key, value in (cfg.finetune_mode.get(node) or {}).items():
            if key not in ("_target_", "task_type"):
                yield f"{name}: {key}", value
    if rows := training.get("rows"):
        yield "rows used", f"{rows['used']:,} of {rows['read']:,}"
    for key, name in (("steps", "optimizer steps done"), ("dtype", "number type"), ("device", "device")):
        if training.get(key) is not None:
            yield name, training[key]


def measured(run: Path) -> Cell | None:
    """Returns the run's numbers, None if it has none of its own, or they are damaged."""
    cells, _ = load_cells([run]) if (run / METRICS_FILE).exists() else ([], [])
    return cells[0] if cells else None


def numbers(cell: Cell) -> str:
    """Returns the table of a cell's metrics with n and 95% intervals."""
    return markdown_table(["metric", "value", "95% interval", "n"], [_number_row(cell, metric) for metric in METRICS])


def _number_row(cell: Cell, metric: str) -> list[str]:
    bounds = cell.intervals.get(metric)
    interval = f"{bounds[0]:.2f} to {bounds[1]:.2f}" if bounds else NONE
    return [_METRIC_NAMES[metric], f"{cell.scores[metric]:.2f}", interval, str(cell.n)]


def versions(run: Path, packages: Iterable[str] = ("torch", "transformers", "trl", "peft")) -> str:
    """Returns "torch 2.8.0, ..." of what the run was made with, "" if the run does not say."""
    file = run / "run.json"
    installed = (read_json(file).get("versions") or {}) if file.is_file() else {}
    return ", ".join(f"{package} {installed[package]}" for package in packages if installed.get(package))


def _last_part(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name
