"""The inspect stage: analyses of a dataset before anything is trained on it (Tables 5 and 7, Figures 3 and 9, near-duplicates, what tells
preferred from dispreferred replies)."""

import shutil
from pathlib import Path

from omegaconf import OmegaConf

from cso_lab.config.cells import expanded
from cso_lab.config.result_settings import Config, plain
from cso_lab.core.files import read_json, write_json
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.dataset import expanded_paths, rows_folder
from cso_lab.pipeline.stage import Result, Stage


class ToxicityScores(Result):
    """The toxicity scores of texts, kept over all datasets. If `version` is raised, every text is scored, and paid for, again."""

    name, version = "scores", 1

    @staticmethod
    def settings(cfg: Config) -> dict:
        """Returns `toxicity`."""
        return plain(cfg, "toxicity")


class Inspect(Result, Stage):
    """Leaves inspection.json, its Markdown and figures in a shared folder, and copies of them in the run folder. Needs the dataset."""

    name, version, of_training = "inspect", 2, True

    @staticmethod
    def settings(cfg: Config) -> dict:
        """Returns `data`, `inspection`, `toxicity`, and the notice of the role players."""
        return plain(cfg, "data", "inspection", "toxicity") | {"notice": None if expanded(cfg) else cfg["roles"]["notice"]}

    def run(self, cell: CellContext) -> None:
        """Analyses the dataset unless that is done, copies the results into the run folder and prints them."""
        from cso_lab.reporting.cells import INSPECTION_FILE
        from cso_lab.reporting.dataset_tables import MARKDOWN_FILE, print_inspection

        dataset = rows_folder(cell).parent
        scorer_model = cell.model_digest(cell.cfg.toxicity.get("path"))
        folder = cell.cache.shared_folder("inspect", self.key(cell.cfg, dataset.name, cell.data_digest(), scorer_model))
        copies, file = (cell.folder / INSPECTION_FILE).parent, folder / Path(INSPECTION_FILE).name
        cell.cache.compute_shared("inspect", folder, lambda: _write(cell, dataset, folder, file))
        copies.mkdir(exist_ok=True)
        for path in (
            path for path in folder.iterdir() if path.suffix in (".json", ".md", ".png", ".svg") and path.stem != "done"
        ):
            shutil.copyfile(path, copies / path.name)
        print_inspection(copies / MARKDOWN_FILE, read_json(dataset / "statistics.json"), read_json(file), dataset.name)


def toxicity_scorer(cell: CellContext):
    """Returns the configured scorer of toxicity, or None."""
    from hydra.utils import instantiate

    return instantiate(cell.cfg.toxicity.scorer, _convert_="all")


def _write(cell: CellContext, dataset: Path, folder: Path, file: Path) -> bool:
    from cso_lab.analysis.analyse import inspect
    from cso_lab.reporting.dataset_tables import write_inspection

    _, train, test = cell.dialogues()
    notice = None if expanded(cell.cfg) else cell.cfg.roles.notice
    scores_key = ToxicityScores.key(cell.cfg, cell.model_digest(cell.cfg.toxicity.get("path")))
    findings = inspect(
        paths=expanded_paths(cell, dataset),
        seed=cell.searched_dialogues(),
        train=train,
        test=test,
        strategies=cell.strategies,
        compared=OmegaConf.to_container(cell.cfg.inspection, resolve=True),
        scorer=toxicity_scorer(cell),
        scores=cell.cache.shared_folder("toxicity", scores_key),
        notices=[notice] if notice else [],
    )
    write_inspection(folder, read_json(dataset / "statistics.json"), findings, dataset.name)
    write_json(file, findings)
    return True
