"""The dataset stage: trees, or dialogues that are expanded already -> preference pairs, KTO rows and SFT rows (section 3.2)."""

import sys
from pathlib import Path

from omegaconf import OmegaConf

from cso_lab.config.cells import expanded, trains_on
from cso_lab.config.result_settings import Config, plain
from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, write_json, write_jsonl
from cso_lab.core.hashing import file_digest
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.search import search_folder, tree_files
from cso_lab.pipeline.stage import Result, Stage
from cso_lab.pipeline.stage_cache import is_done


class Dataset(Result, Stage):
    """Leaves preferences/{pairs,sft,kto}.jsonl and statistics.json (Table 5) in a shared folder, and prompts.jsonl there when an algorithm
    reads it. Needs the trees of the whole search, or data that is expanded already."""

    name, version, of_training = "dataset", 1, True

    @staticmethod
    def settings(cfg: Config) -> dict:
        """Returns `preferences` and the strategies; of expanded data also `data`, and `roles` if they generate new negatives."""
        values = plain(cfg, "preferences") | {"strategies": cfg["data"]["strategies"]}
        if expanded(cfg):
            values |= plain(cfg, "data")
        if cfg["preferences"]["negatives"] is not None:
            values |= plain(cfg, "roles")
        return values

    def run(self, cell: CellContext) -> None:
        """Makes the dataset unless it is finished. Raises UserError if it holds no rows for the cell's algorithm."""
        folder = _folder(cell, "search")
        cell.cache.compute_shared("dataset", folder, lambda: _write(cell, folder))
        _add_prompts(cell, folder)
        _check_rows(cell, folder)


def finished_dataset(cell: CellContext) -> Path:
    """Returns the folder of the finished dataset. Raises UserError, which says how to make it, if there is none."""
    folder = _folder(cell, "search,dataset")
    if not is_done(folder):
        raise cell.missing("dataset", "no preference data for this configuration")
    _add_prompts(cell, folder)
    return folder


def rows_folder(cell: CellContext) -> Path:
    """Returns the folder with the rows to train on. Raises UserError if it is missing or holds none for the cell's algorithm."""
    folder = finished_dataset(cell)
    cell.cache.note_folder("dataset", folder)
    _check_rows(cell, folder)
    return folder / "preferences"


def expanded_paths(cell: CellContext, folder: Path) -> list:
    """Returns the expanded dialogues that the dataset in `folder` is made of, as paths of choices."""
    return _selected_paths(cell, folder)[0]


def _selected_paths(cell: CellContext, folder: Path) -> tuple[list, dict[str, int]]:
    """Returns the paths of the dataset in `folder`, and what the selection of pairs left (see `Selection`)."""
    from hydra.utils import instantiate

    from cso_lab.preferences.generate_negatives import generate_negatives
    from cso_lab.preferences.selection import Selection

    preferences = cell.cfg.preferences
    paths, counts = Selection.of(preferences)(_preferred_paths(cell))
    if preferences.negatives is None:
        return paths, counts
    roles, strategies = OmegaConf.to_container(cell.cfg.roles, resolve=True), cell.strategies
    swap = instantiate(preferences.negatives)
    paths = swap(
        paths, strategies.names, lambda wanted: generate_negatives(wanted, roles, strategies, preferences.seed, folder)
    )
    return paths, counts


def _preferred_paths(cell: CellContext) -> list:
    """Returns what `expanded_paths` does, before pairs are selected and dispreferred turns swapped."""
    from hydra.utils import instantiate

    from cso_lab.preferences.escpro import sample_paths
    from cso_lab.preferences.published_escpro import expanded_paths
    from cso_lab.search.tree import Tree

    preferences = cell.cfg.preferences
    if expanded(cell.cfg):
        corpus, train, _ = cell.dialogues()
        print(corpus)
        paths = expanded_paths(corpus, train)
    else:
        paths = instantiate(preferences.builder)([Tree.from_json(read_json(file)) for file in tree_files(cell, "search")])
    if preferences.dialogues is not None and preferences.dialogues > len(paths):
        print(f"preferences.dialogues={preferences.dialogues}: there are {len(paths)}, and all are used", file=sys.stderr)
    return sample_paths(paths, preferences.dialogues, preferences.seed)


def check_negatives(cell: CellContext) -> None:
    """Raises UserError if the replies of CSO-Random are to be asked for in batches and their model cannot be."""
    cfg = cell.cfg
    if not cfg.roles.batch or cfg.preferences.negatives is None:
        return
    from cso_lab.preferences.generate_negatives import check_fresh_replies

    try:
        if is_done(_folder(cell, "search,dataset")):
            return
    except UserError:
        pass  # the search is still to come
    check_fresh_replies(OmegaConf.to_container(cfg.roles, resolve=True))


def _folder(cell: CellContext, make: str) -> Path:
    """Returns the folder of the dataset. Raises UserError, which names the stages (`make`) to run, if what it is made of is missing."""
    source = cell.data_digest() if expanded(cell.cfg) else [file_digest(file) for file in tree_files(cell, make)]
    return cell.cache.shared_folder("dataset", Dataset.key(cell.cfg, source))


def _write(cell: CellContext, folder: Path) -> bool:
    from cso_lab.preferences.rows import kto_rows, pair_rows, sft_rows
    from cso_lab.preferences.statistics import strategy_counts, table5

    paths, selection = _selected_paths(cell, folder)
    pairs, seed = pair_rows(paths, cell.strategies), cell.searched_dialogues()
    rows = {"pairs": pairs, "sft": sft_rows(paths, cell.strategies), "kto": kto_rows(pairs)}
    counts = {name: write_jsonl(folder / "preferences" / f"{name}.jsonl", rows[name]) for name in rows}
    statistics = {"rows": counts, "strategies": strategy_counts(seed or (), pairs), "table5": table5(seed, paths)}
    if selection:
        print(f"pairs selected by preferences: {', '.join(f'{name} {count:,}' for name, count in selection.items())}")
        statistics["selection"] = selection
    write_json(folder / "statistics.json", statistics)
    return True


def _add_prompts(cell: CellContext, folder: Path) -> None:
    """Writes prompts.jsonl into a finished dataset if the cell trains on it and it is missing.

    It follows from what the dataset was made of, so that the key of a dataset does not depend on it.
    """
    file = folder / "preferences" / "prompts.jsonl"
    if not trains_on(cell.cfg, "prompts") or file.exists():
        return
    from cso_lab.preferences.rows import prompt_rows

    write_jsonl(file, prompt_rows(_preferred_paths(cell), cell.strategies))


def _check_rows(cell: CellContext, dataset: Path) -> None:
    """Raises UserError if the dataset holds none of the rows that the cell's algorithm trains on; SFT needs no pairs."""
    statistics = read_json(dataset / "statistics.json")
    if statistics["rows"].get(cell.cfg.algorithm.rows) != 0:
        return
    if statistics.get("selection", {}).get("all"):
        advice = f"preferences.gold=false leaves none of {statistics['selection']['all']}, give preferences.gold=true"
    elif not expanded(cell.cfg):
        advice = "raise mcts.max_iterations, or take more dialogues"
    elif cell.cfg.preferences.dialogues is not None:
        advice = "raise preferences.dialogues"
    else:
        advice = (
            "what is dispreferred stands there under `negative`, `reject` or `rejected`; give data.path=FILE of another file"
        )
    source = str(cell.cfg.data.path) if expanded(cell.cfg) else f"the trees in {search_folder(cell)}"
    pairs = cell.cfg.algorithm.rows != "sft"
    row_kind, other = ("preference pair", "; algo=sft needs none") if pairs else ("preferred turn", "")
    raise UserError(f"there is no {row_kind} in {source}: {advice}{other}")
