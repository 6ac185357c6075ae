"""Exports the preference data of a run or of a dataset folder, in the layout that `datasets` and the model hub read."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from cso_lab.core.errors import UserError
from cso_lab.core.run_folders import stage_folder
from cso_lab.core.tables import NONE, markdown_table
from cso_lab.export import facts
from cso_lab.export.card import write_card
from cso_lab.export.folder import check_free, new_folder
from cso_lab.generation.run_folder import run_configuration

# The files of a dataset, each a configuration of the exported one; the first is the default.
CONFIGS = ("pairs", "sft", "kto")
_ROWS = "preferences"
_COLUMNS = ("seed", "seeker", "preferred", "dispreferred", "all")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def is_dataset(folder: Path) -> bool:
    """Returns whether a folder is that of a dataset, and not of a run."""
    return (folder / _ROWS).is_dir() and not (folder / "config.yaml").exists()


def export_dataset(source: Path, out: Path) -> None:
    """Writes the rows of a dataset, with statistics and a card that tells `datasets` which file is which, to the folder `out`.

    `source` is a run, or the folder of a dataset; that does not say what was expanded and by whom, and neither does its card then.
    Raises UserError if there is no dataset, it has no rows, or `out` is not empty.
    """
    check_free(out)
    dataset, cfg = _find(source)
    files = [name for name in CONFIGS if _has_rows(dataset / _ROWS / f"{name}.jsonl")]
    if not files:
        raise UserError(f"{dataset / _ROWS} holds no rows: nothing to export")
    with new_folder(out) as folder:
        (folder / "data").mkdir()
        for name in files:
            shutil.copyfile(dataset / _ROWS / f"{name}.jsonl", folder / "data" / f"{name}.jsonl")
        if (dataset / "statistics.json").is_file():
            shutil.copyfile(dataset / "statistics.json", folder / "statistics.json")
        _write_card(dataset, cfg, source, files, folder)


def _find(source: Path) -> tuple[Path, DictConfig | None]:
    """Returns (dataset folder, the run's configuration or None)."""
    if is_dataset(source):
        return source, None
    cfg = run_configuration(source)
    dataset = stage_folder(source, "dataset")
    if dataset is None or not (dataset / _ROWS).is_dir():
        raise UserError(
            f"{source}: its dataset is not here: run its dataset stage, or copy the run with the folder that stages.json names"
        )
    return dataset, cfg


def _has_rows(file: Path) -> bool:
    # `datasets` cannot read a file without rows.
    return file.is_file() and file.stat().st_size > 0


def _write_card(dataset: Path, cfg: DictConfig | None, source: Path, files: Sequence[str], folder: Path) -> None:
    from huggingface_hub import DatasetCardData

    statistics = facts.read_statistics(dataset)
    rows = {name: _count(dataset / _ROWS / f"{name}.jsonl") for name in files}
    sample = cfg is not None and facts.is_sample(cfg)
    name = f"Preference data from {cfg.data.name}" if cfg is not None else "Preference data"
    # The path of each file is given, because from a name such as test.jsonl `datasets` would guess the split.
    configs = [
        {
            "config_name": config,
            "data_files": [{"split": "train", "path": f"data/{config}.jsonl"}],
            **({"default": True} if config == files[0] else {}),
        }
        for config in files
    ]
    metadata = DatasetCardData(
        language="en" if sample else None,
        license="apache-2.0" if sample else None,
        pretty_name=name,
        size_categories=next((size for limit, size in _SIZES if max(rows.values()) < limit), "n>1M"),
        tags=["cso_lab", "emotional-support", "preference"],
        task_categories=["text-generation"],
        configs=configs,
    )
    write_card(
        folder,
        "dataset",
        metadata,
        name=name,
        rows=rows,
        corpus=None if cfg is None else facts.corpus(cfg),
        sample=sample,
        players=[] if cfg is None else facts.players(cfg),
        search=None if cfg is None else cfg.mcts.name,
        preferences=None if cfg is None else cfg.preferences.name,
        notices=[] if cfg is None else facts.notices(cfg),
        known=cfg is not None,
        table5=_table5(statistics.get("table5") or {}),
        strategies=_strategies(statistics.get("strategies") or {}),
        versions="" if cfg is None else facts.versions(source),
    )


def _count(file: Path) -> int:
    with file.open(encoding="utf-8") as lines:
        return sum(1 for line in lines if line.strip())


def _table5(table: Mapping) -> str | None:
    """Returns numbers and lengths of dialogues and utterances (Table 5), None where there are none."""
    parts = {"seed": table.get("seed"), **table.get("per_path", {})}
    kinds = list(next((part for part in parts.values() if part), {}))
    if not kinds:
        return None
    rows = [[kind.replace("_", " "), *(_number((parts.get(column) or {}).get(kind)) for column in _COLUMNS)] for kind in kinds]
    return markdown_table(["", *_COLUMNS], rows)


def _strategies(counts: Mapping) -> str | None:
    """Returns how often each strategy was used in the seed dialogues and in the two sides of the pairs."""
    sides = [side for side in ("seed", "chosen", "rejected") if counts.get(side)]
    names = sorted({name for side in sides for name in counts[side]})
    rows = [[name, *(_number(counts[side].get(name, 0)) for side in sides)] for name in names]
    return markdown_table(["strategy", *sides], rows) if names else None


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
