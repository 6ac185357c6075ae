"""The search stage: gold dialogues -> trees (section 3.1)."""

import sys
from functools import partial
from pathlib import Path

from omegaconf import OmegaConf

from cso_lab.config.cells import expanded, rounds_of
from cso_lab.config.result_settings import Config, plain
from cso_lab.core.errors import UserError
from cso_lab.core.files import write_json
from cso_lab.llm.in_process import OWN_SUPPORTER
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.own_supporter import own_supporter, supporter_identity
from cso_lab.pipeline.stage import Result, Stage
from cso_lab.pipeline.stage_cache import is_done


class Search(Result, Stage):
    """Leaves trees/*.json, the journal of calls, search.json and report.html in a shared folder. A part (`data.shard`) has its own below.

    `version` counts readers and splits of the corpora, the search, the roles' prompts and parsing, and the simulated role players. Raising
    it means that searches are paid for again: do so only where the trees that were kept are wrong.
    """

    name, version, of_training = "search", 1, True

    @staticmethod
    def settings(cfg: Config) -> dict:
        """Returns `data`, `roles` and `mcts`, and the thresholds by which the extension pass selects turns."""
        values = plain(cfg, "data", "roles", "mcts")
        if cfg["mcts"]["extend_negatives"] and not expanded(cfg):
            values["extended"] = {key: cfg["preferences"][key] for key in ("theta", "min_end_visits")}
        return values

    def run(self, cell: CellContext) -> None:
        """Searches the dialogues that have no tree yet; does nothing if the data is expanded already."""
        if _nothing_to_search(cell):
            return
        whole = search_folder(cell)
        out = _part_folder(cell, whole)
        cell.cache.compute_shared("search", out, lambda: _search(cell, whole, out))


def check_role_players(cell: CellContext) -> None:
    """Raises UserError if a search is left to do and a role cannot be asked: its key is missing, or its model names no provider."""
    from cso_lab.llm.transport import Transport
    from cso_lab.roles.prompts import PLACEHOLDERS

    roles = cell.cfg.roles
    if expanded(cell.cfg) or is_done(_part_folder(cell, search_folder(cell))):
        return
    transport = Transport(roles.api_base, roles.api_key_env)
    for role in PLACEHOLDERS:
        transport.check(role, roles[role].model)


def search_folder(cell: CellContext, make: str = "search") -> Path:
    """Returns the folder of the whole search, whichever part `data.shard` names. Raises UserError, which names the stages (`make`) to run,
    if an earlier round has not run."""
    return cell.cache.shared_folder("search", Search.key(cell.cfg, cell.data_digest(), *supporter_identity(cell, make)))


def tree_files(cell: CellContext, make: str) -> list[Path]:
    """Returns the trees of the whole search. Raises UserError, which names the stages (`make`) to run, if any part is missing."""
    from cso_lab.expansion.shards import union

    files, missing = union(search_folder(cell, make))
    if missing:
        raise cell.missing("search", f"of this search {', '.join(missing)} are missing", parts=missing)
    if not files:
        raise cell.missing(make, "no trees for this configuration")
    return files


def print_estimate(cell: CellContext) -> None:
    """Prints the estimated calls, tokens and cost of the rest of the search, and runs nothing."""
    if _nothing_to_search(cell):
        return
    from cso_lab.expansion.expand import estimate_rest

    for each in cell.rounds():
        try:
            folder = _part_folder(each, search_folder(each))
        except UserError:  # the round before is still to come, so nothing of this search is there
            folder = Path(each.cfg.shared_dir) / "search" / "to come"
        dialogues, settings = _dialogues_and_settings(each, folder)
        label = f"round {rounds_of(each.cfg)}: " if cell.before is not None else ""
        print(f"{label}{estimate_rest(dialogues, **settings)}{_in_process(each)}")


def _in_process(cell: CellContext) -> str:
    own = "; the supporter is the cell's own model, which answers in this process and costs nothing"
    return "" if cell.before is None else own


def _part_folder(cell: CellContext, whole: Path) -> Path:
    from cso_lab.expansion.shards import part_folder

    return part_folder(whole, cell.cfg.data.shard)


def _nothing_to_search(cell: CellContext) -> bool:
    if nothing := expanded(cell.cfg):
        print(f"data={cell.cfg.data.name} is expanded already: there is nothing to search")
    return nothing


def _search(cell: CellContext, whole: Path, out: Path) -> bool:
    """Searches the dialogues. Returns whether every one has a tree."""
    from cso_lab.expansion import shards
    from cso_lab.expansion.expand import SUMMARY, expand
    from cso_lab.reporting.tree_page import write_tree_page

    corpus, _, _ = cell.dialogues()
    print(corpus)
    if cell.cfg.roles.batch:
        print(
            "roles.batch=true: a search asks one question after another, at full price; only CSO-Random uses batches",
            file=sys.stderr,
        )
    dialogues, settings = _dialogues_and_settings(cell, out)
    if copied := shards.copy_finished_trees(whole, out, (dialogue.id for dialogue in dialogues)):
        print(f"took over {copied} trees that other parts of this search have finished")
    watch = partial(cell.cache.tracker.log, "search")
    with own_supporter(cell):
        summary = expand(dialogues, **settings, corpus_report=corpus.rejects(), log_metrics=watch)
    if parts := shards.usage_of_parts(whole) if out == whole else {}:
        write_json(out / SUMMARY, summary | {"parts": parts})
    if summary["trees"]:
        page = write_tree_page(out, cell.cfg.preferences.theta, cell.cfg.preferences.min_end_visits)
        print(f"the trees, to look at in a browser: {page}")
    for name, reason in summary["set_aside"].items():
        print(f"set aside {name}: {reason}; the same command takes it up again", file=sys.stderr)
    return not summary["set_aside"]


def _dialogues_and_settings(cell: CellContext, folder: Path) -> tuple[list, dict]:
    """Returns the dialogues to search, and how, as `expand` takes it."""
    from cso_lab.corpora import seeds

    cfg = cell.cfg
    _, train, _ = cell.dialogues()
    roles = OmegaConf.to_container(cfg.roles, resolve=True)
    if cell.before is not None:
        roles["supporter"]["model"] = OWN_SUPPORTER
    return seeds(train, cfg.data.seed_dialogues, cfg.data.shard), {
        "mcts": OmegaConf.to_container(cfg.mcts, resolve=True),
        "roles": roles,
        "strategies": cell.strategies,
        "folder": folder,
        "theta": cfg.preferences.theta,
        "min_end_visits": cfg.preferences.min_end_visits,
    }
