"""What the stages of a cell are found by: identities of what a result depends on, and the folders named by them."""

from pathlib import Path

from omegaconf import DictConfig

from cso_lab import naming
from cso_lab.account import Account, done


class Places(Account):
    """Where a cell's stages have their files, whether there are any yet or not."""

    def _search_folder(self) -> Path:
        from cso_lab.corpora import data_file

        data = naming.plain(self.cfg, "data")
        search = [
            data,
            naming.file_digest(data_file(self.cfg.data)),
            naming.plain(self.cfg, "roles"),
            naming.plain(self.cfg, "mcts"),
        ]
        if self.cfg.mcts.extend_negatives:
            search.append([self.cfg.preferences.theta, self.cfg.preferences.min_end_visits])
        return self._shared_folder("search", naming.digest(search))

    def _tree_files(self, make: str) -> list[Path]:
        """The trees of the whole search, whichever part `data.shard` names; a UserError says which stages (`make`) to run for them."""
        from cso_lab.shards import union

        files, missing = union(self._search_folder())
        if missing:
            raise self._missing("search", f"of this search {', '.join(missing)} are missing", parts=missing)
        if not files:
            raise self._missing(make, "no trees for this configuration")
        return files

    def _dataset_folder(self, make: str) -> Path:
        """Where the dataset is, found by what it is made of; a UserError says which stages (`make`) to run where that is missing."""
        from cso_lab.corpora import data_file

        if self.cfg.data.get("expanded"):
            source = [
                naming.plain(self.cfg, "data"),
                naming.file_digest(data_file(self.cfg.data)),
                naming.code_version(("corpora",)),
            ]
        else:
            source = [naming.file_digest(path) for path in self._tree_files(make)]
        asked = [] if self.cfg.preferences.negatives is None else [naming.plain(self.cfg, "roles")]
        code = naming.code_version(("preferences", "search/paths.py", "dialogue.py", "strategies.py"))
        return self._shared_folder("dataset", naming.digest([source, naming.plain(self.cfg, "preferences"), *asked, code]))

    def _inspect_folder(self, dataset: Path) -> Path:
        from cso_lab.corpora import data_file

        looked_at = [dataset.name, naming.plain(self.cfg, "data"), naming.file_digest(data_file(self.cfg.data))]
        settings = [naming.plain(self.cfg, "inspection"), naming.plain(self.cfg, "toxicity")]
        shown = (
            "reporting/dataset_tables.py",
            "core/tables.py",
            "reporting/figures.py",
            "core/published_studies.yaml",
        )
        rooms = ("inspection", "preferences/statistics.py", "dialogue.py", "strategies.py", *shown)
        simulated = ("roles/simulated/toxicity.py", "roles/simulated/toxicity.yaml")
        return self._shared_folder("inspect", naming.digest([looked_at, settings, naming.code_version((*rooms, *simulated))]))

    def _scores_folder(self) -> Path:
        """Where a scorer keeps what it has scored, of whatever dataset: the code has no part in it, since scores may have been paid for."""
        return self._shared_folder("toxicity", naming.digest(naming.plain(self.cfg, "toxicity")))

    def _source(self) -> str:
        return str(self.cfg.data.path) if self.cfg.data.get("expanded") else f"the trees in {self._search_folder()}"

    def _shared_folder(self, stage: str, identity: str) -> Path:
        return Path(self.cfg.shared_dir).resolve() / stage / identity

    def _train_identity(self, cfg: DictConfig, data: Path) -> str:
        nodes = ("backbone", "algorithm", "finetune_mode", "training", "hardware", "seed")
        rows = naming.file_digest(data / f"{cfg.algorithm.rows}.jsonl")
        return naming.digest([*(naming.plain(cfg, node) for node in nodes), rows, naming.code_version(("training",))])

    def _generate_identity(self) -> str:
        from cso_lab.corpora import data_file

        rooms = ("generation", "training/backbone.py", "training/rows.py", "dialogue.py", "strategies.py")
        nodes = [naming.plain(self.cfg, node) for node in ("backbone", "data")] + [naming.generation(self.cfg)]
        here = naming.trains_here(self.cfg)
        trained = self.record["identities"].get("train") if here else naming.trained_elsewhere(self.cfg)
        return naming.digest([nodes, naming.file_digest(data_file(self.cfg.data)), trained, naming.code_version(rooms)])

    def _evaluate_identity(self, predictions: Path, testset: Path | None) -> str:
        return naming.digest(
            [
                predictions.read_text(encoding="utf-8"),
                naming.evaluation(self.cfg),
                naming.file_digest(testset) if testset else None,
                naming.code_version(("evaluation", "strategies.py")),
            ]
        )

    def _preferences(self) -> Path:
        """The folder with the rows to train on; a UserError says how to make it."""
        folder = self._dataset_folder("search,dataset")
        if not done(folder):
            raise self._missing("dataset", "no preference data for this configuration")
        self._leave("dataset", folder)
        return folder / "preferences"

    def _dialogues(self):
        """(corpus, training dialogues, test dialogues)."""
        from cso_lab.corpora import load

        corpus = load(self.cfg.data)
        return corpus, *corpus.split(self.cfg.data.test_share, self.cfg.data.split_seed)

    def _strategies(self):
        from cso_lab.strategies import strategy_set

        return strategy_set(self.cfg.data.strategies)
