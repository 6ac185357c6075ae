"""The stages whose results cells share: search, dataset and the strategy test set, found by a hash of configuration and inputs."""

import shutil
import sys
from functools import partial
from pathlib import Path

from omegaconf import OmegaConf

from cso_lab.files import read_json, write_json, write_jsonl
from cso_lab.places import Places


class SharedStages(Places):
    """Each is computed once for all cells that ask for the same, one process at a time."""

    def estimate(self) -> None:
        """Print what is left of the search would take, and run nothing."""
        if self._nothing_to_search():
            return
        from cso_lab import shards
        from cso_lab.expansion import estimate_rest

        dialogues, settings = self._search_settings(shards.part_folder(self._search_folder(), self.cfg.data.shard))
        print(estimate_rest(dialogues, **settings))

    def search(self) -> Path | None:
        if self._nothing_to_search():
            return None
        from cso_lab import shards
        from cso_lab.expansion import SUMMARY, expand
        from cso_lab.reporting.tree_page import write_tree_page

        whole = self._search_folder()
        out = shards.part_folder(whole, self.cfg.data.shard)

        def work() -> bool:
            corpus, _, _ = self._dialogues()
            print(corpus)
            dialogues, settings = self._search_settings(out)
            if taken := shards.take_over(whole, out, (dialogue.id for dialogue in dialogues)):
                print(f"took over {taken} trees that other parts of this search have finished")
            watch = partial(self.tracking.log, "search")
            summary = expand(dialogues, **settings, account=corpus.rejects(), watch=watch)
            if parts := shards.usage_of_parts(whole) if out == whole else {}:
                write_json(out / SUMMARY, summary | {"parts": parts})
            if summary["trees"]:
                page = write_tree_page(out, self.cfg.preferences.theta, self.cfg.preferences.min_end_visits)
                print(f"the trees, to look at in a browser: {page}")
            for name, reason in summary["set_aside"].items():
                print(f"set aside {name}: {reason}; the same command takes it up again", file=sys.stderr)
            return not summary["set_aside"]

        return self._shared("search", out, work)

    def _nothing_to_search(self) -> bool:
        if expanded := bool(self.cfg.data.get("expanded")):
            print(f"data={self.cfg.data.name} is expanded already: there is nothing to search")
        return expanded

    def _search_settings(self, folder: Path) -> tuple[list, dict]:
        """The dialogues to search, and how."""
        from cso_lab.corpora import seeds

        _, train, _ = self._dialogues()
        return seeds(train, self.cfg.data.seed_dialogues, self.cfg.data.shard), {
            "mcts": OmegaConf.to_container(self.cfg.mcts, resolve=True),
            "roles": OmegaConf.to_container(self.cfg.roles, resolve=True),
            "strategies": self._strategies(),
            "folder": folder,
            "theta": self.cfg.preferences.theta,
            "min_end_visits": self.cfg.preferences.min_end_visits,
        }

    def dataset(self) -> Path:
        from cso_lab.corpora import seeds
        from cso_lab.preferences.rows import kto_rows, pair_rows, sft_rows
        from cso_lab.preferences.statistics import strategy_counts, table5

        out = self._dataset_folder("search")

        def work() -> bool:
            paths = self._paths(out)
            pairs = pair_rows(paths, self._strategies())
            _, train, _ = self._dialogues()
            seed = None if self.cfg.data.get("expanded") else seeds(train, self.cfg.data.seed_dialogues)
            rows = {"pairs": pairs, "sft": sft_rows(paths, self._strategies()), "kto": kto_rows(pairs)}
            counts = {name: write_jsonl(out / "preferences" / f"{name}.jsonl", rows[name]) for name in rows}
            statistics = {"rows": counts, "strategies": strategy_counts(seed or (), pairs), "table5": table5(seed, paths)}
            write_json(out / "statistics.json", statistics)
            return True

        folder = self._shared("dataset", out, work)
        self._check_rows(folder)
        return folder

    def _paths(self, out: Path) -> list:
        """The expanded dialogues the dataset in `out` is made of, as paths of choices."""
        from hydra.utils import instantiate

        from cso_lab.preferences.authors import expanded_paths
        from cso_lab.preferences.escpro import some
        from cso_lab.preferences.fresh import fresh_replies
        from cso_lab.search.tree import Tree

        preferences = self.cfg.preferences
        if self.cfg.data.get("expanded"):
            corpus, train, _ = self._dialogues()
            print(corpus)
            paths = expanded_paths(corpus, train)
        else:
            paths = instantiate(preferences.builder)([Tree.from_json(read_json(file)) for file in self._tree_files("search")])
        if preferences.dialogues is not None and preferences.dialogues > len(paths):
            print(f"preferences.dialogues={preferences.dialogues}: there are {len(paths)}, and all are used", file=sys.stderr)
        paths = some(paths, preferences.dialogues, preferences.seed)
        if preferences.negatives is None:
            return paths
        roles, strategies = OmegaConf.to_container(self.cfg.roles, resolve=True), self._strategies()
        swap = instantiate(preferences.negatives)
        return swap(paths, strategies.names, lambda wanted: fresh_replies(wanted, roles, strategies, preferences.seed, out))

    def inspect(self) -> Path:
        """Tables 5 and 7, Figures 3 and 9 and near-duplicates of the dataset; what is found is copied into the run folder."""
        from cso_lab.corpora import seeds
        from cso_lab.inspection.inspect import inspect
        from cso_lab.reporting.cells import INSPECTION_FILE
        from cso_lab.reporting.dataset_tables import MARKDOWN_FILE, print_inspection, write_inspection

        dataset = self._preferences().parent
        out, own = self._inspect_folder(dataset), (self.folder / INSPECTION_FILE).parent
        file, statistics = out / Path(INSPECTION_FILE).name, read_json(dataset / "statistics.json")
        expanded = bool(self.cfg.data.get("expanded"))

        def work() -> bool:
            _, train, test = self._dialogues()
            found = inspect(
                paths=self._paths(dataset),
                seed=None if expanded else seeds(train, self.cfg.data.seed_dialogues),
                train=train,
                test=test,
                strategies=self._strategies(),
                compared=OmegaConf.to_container(self.cfg.inspection, resolve=True),
                scorer=self._scorer(),
                scores=self._scores_folder(),
                notices=[self.cfg.roles.notice] if self.cfg.roles.notice and not expanded else [],
            )
            write_inspection(out, statistics, found, dataset.name)
            write_json(file, found)
            return True

        self._shared("inspect", out, work)
        own.mkdir(exist_ok=True)
        for path in (path for path in out.iterdir() if path.suffix in (".json", ".md", ".png", ".svg") and path.stem != "done"):
            shutil.copyfile(path, own / path.name)
        print_inspection(own / MARKDOWN_FILE, statistics, read_json(file), dataset.name)
        return out

    def _scorer(self):
        """The scorer of toxicity, or None."""
        from hydra.utils import instantiate

        return instantiate(self.cfg.toxicity.scorer, _convert_="all")

    def _strategy_testset(self) -> Path:
        """The file of the strategy test set, drawn once for all cells of the same data."""
        from cso_lab.evaluation import testset

        folder = self._shared_folder("testset", self._data_file())

        def work() -> bool:
            drawing = self.cfg.evaluation
            _, _, test = self._dialogues()
            contexts = testset.draw_contexts(test, drawing.shortest, drawing.longest, drawing.cuts, drawing.testset_seed)
            write_jsonl(folder / testset.FILE, contexts)
            return True

        return self._shared("testset", folder, work) / testset.FILE
