"""Stage name -> function. The only place that knows them all; stages meet at files on disk and nowhere else."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab import naming
from cso_lab.checks import STAGES, check
from cso_lab.dialogue import TEST_DIALOGUES
from cso_lab.errors import MissingKey, UserError
from cso_lab.files import read_json, write_json, write_jsonl

FAILED = "failed.json"
_PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "litellm", "hydra-core")


def run(cfg: DictConfig, folder: Path, sweeping: bool) -> None:
    """Run the stages of one cell into `folder`. In a sweep a failure is left in failed.json, so that it stops no other cell."""
    from filelock import FileLock

    try:
        check(cfg)
        if cfg.report.folder:
            return _report_folder(cfg, folder)
        with FileLock(folder / ".lock"):  # the same cell started twice: the second waits, and finds it finished
            folder.joinpath(FAILED).unlink(missing_ok=True)
            job = Run(cfg, folder, sweeping)
            job.estimate() if cfg.estimate else job.stages()
    except Exception as error:
        from cso_lab.explain import explain

        known = explain(error)
        if not sweeping:
            raise
        reason = str(known or f"{type(error).__name__}: {error}")
        write_json(folder / FAILED, {"reason": reason, "needs_key": isinstance(known, MissingKey) and naming.is_api(cfg)})
        if known is None:
            import traceback

            traceback.print_exc()
        print(f"error: {folder.name}: {known or error}", file=sys.stderr)


def _report_folder(cfg: DictConfig, folder: Path) -> None:
    from cso_lab.reporting.folders import report_again

    if not report_again(cfg, folder):
        raise SystemExit(1)


class Run:
    """One cell: its configuration, its folder, and which folder each of its stages has its files in."""

    def __init__(self, cfg: DictConfig, folder: Path, sweeping: bool = False):
        self.cfg, self.folder, self.sweeping = cfg, folder, sweeping
        self._record_file = folder / "run.json"
        self.record = read_json(self._record_file) if self._record_file.exists() else {"identities": {}, "seconds": {}}

    def stages(self) -> None:
        """What `cfg.stages` names, in the order in which stages feed one another."""
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.cfg, self.folder / "config.yaml", resolve=True)
        if self.cfg.rerun:
            self.record["identities"].clear()
        functions = {
            "search": self.search,
            "dataset": self.dataset,
            "train": self.train,
            "generate": self.generate,
            "evaluate": self.evaluate,
            "report": self.report,
        }
        for stage in STAGES:
            if stage in self.cfg.stages and (naming.trains_here(self.cfg) or stage not in ("search", "dataset", "train")):
                functions[stage]()

    def estimate(self) -> None:
        """Print what is left of the search would take, and run nothing."""
        if self._nothing_to_search():
            return
        from cso_lab import shards
        from cso_lab.expansion import estimate_rest

        dialogues, settings = self._search_settings(shards.part_folder(self._search_folder(), self.cfg.data.shard))
        print(estimate_rest(dialogues, **settings))

    # Shared stages: found by a hash of configuration and inputs.

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
            dialogues, settings = self._search_settings(out)
            if taken := shards.take_over(whole, out, (dialogue.id for dialogue in dialogues)):
                print(f"took over {taken} trees that other parts of this search have finished")
            summary = expand(dialogues, **settings, account=corpus.rejects())
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
            if not pairs:
                raise UserError(f"{self._source()} gives no preference pair: raise mcts.max_iterations, or take more dialogues")
            _, train, _ = self._dialogues()
            seed = None if self.cfg.data.get("expanded") else seeds(train, self.cfg.data.seed_dialogues)
            rows = {"pairs": pairs, "sft": sft_rows(paths, self._strategies()), "kto": kto_rows(pairs)}
            counts = {name: write_jsonl(out / "preferences" / f"{name}.jsonl", rows[name]) for name in rows}
            statistics = {"rows": counts, "strategies": strategy_counts(seed or (), pairs), "table5": table5(seed, paths)}
            write_json(out / "statistics.json", statistics)
            return True

        return self._shared("dataset", out, work)

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

    # The cell's own stages: their files lie in the run folder.

    def train(self) -> None:
        data = self._preferences()
        identity = self._train_identity(self.cfg, data)
        if self._finished("train", identity, self.folder / "checkpoint") or self._taken_over("train", identity, "checkpoint"):
            return
        from cso_lab.training.train import train

        start = self._start_checkpoint(data) if self.cfg.algorithm.start_from == "sft" else None
        with self._timed("train", identity):
            write_json(self.folder / "training.json", train(self.cfg, data, self.folder, start))

    def generate(self) -> None:
        checkpoint = None
        if naming.trains_here(self.cfg):
            checkpoint = self._left("train") / "checkpoint"
            if not self.record["identities"].get("train") or not checkpoint.exists():
                raise self._missing("train", f"no checkpoint in {self.folder}")
        identity = self._generate_identity()
        if self._finished("generate", identity, self.folder / "predictions.jsonl"):
            return
        if sibling := self._taken_over("generate", identity, "predictions.jsonl"):
            for file in ("predictions.jsonl", TEST_DIALOGUES, "usage.json", "example.json"):
                if (sibling / file).exists():
                    shutil.copyfile(sibling / file, self.folder / file)
            return
        from cso_lab.generation.generate import generate

        _, train, test = self._dialogues()
        if not test:
            raise UserError(f"data.test_share={self.cfg.data.test_share} leaves no test dialogue to generate for")
        # Asked again, a server is asked anew; a run that was killed while it did so goes on.
        answers = ("calls.jsonl",) if self.cfg.rerun else ()
        with self._timed("generate", identity, discard=("predictions.jsonl", *answers)):
            write_jsonl(self.folder / TEST_DIALOGUES, test)
            generate(self.cfg, test, self._strategies(), checkpoint, self.folder, train)

    def evaluate(self) -> None:
        predictions = self.folder / "predictions.jsonl"
        if not predictions.exists():
            raise self._missing("generate", f"no predictions in {self.folder}")
        drawn = self._strategy_testset() if self.cfg.evaluation.testset == "strategy" else None
        identity = naming.digest(
            [
                predictions.read_text(encoding="utf-8"),
                naming.evaluation(self.cfg),
                naming.file_digest(drawn) if drawn else None,
                naming.code_version(("evaluation", "strategies.py")),
            ]
        )
        if self._finished("evaluate", identity, self.folder / "metrics.json"):
            return
        from cso_lab.evaluation.score import evaluate_predictions, load_predictions
        from cso_lab.evaluation.testset import evaluate_on_contexts

        with self._timed("evaluate", identity):
            found, strategies = load_predictions(predictions, self._strategies()), self._strategies()
            if drawn:
                scores = evaluate_on_contexts(found, drawn, strategies, complete=self.cfg.generation.max_turns is None)
            else:
                scores = evaluate_predictions(found, strategies, per_turn=True)
            write_json(self.folder / "metrics.json", {"cell": self._cell(), **scores, "context": self._context()})

    def _strategy_testset(self) -> Path:
        """The file of the strategy test set, drawn once for all cells of the same data."""
        from cso_lab.corpora import data_file
        from cso_lab.evaluation import testset

        data = [naming.plain(self.cfg, "data"), naming.file_digest(data_file(self.cfg.data))]
        code = naming.code_version(("evaluation/testset.py", "corpora"))
        folder = self._shared_folder("testset", naming.digest([data, naming.evaluation(self.cfg), code]))

        def work() -> bool:
            drawing = self.cfg.evaluation
            _, _, test = self._dialogues()
            contexts = testset.draw_contexts(test, drawing.shortest, drawing.longest, drawing.cuts, drawing.testset_seed)
            write_jsonl(folder / testset.FILE, contexts)
            return True

        return self._shared("testset", folder, work) / testset.FILE

    def report(self) -> None:
        if self.sweeping:
            return  # the sweep's own report comes once, at its end
        from cso_lab.reporting.folders import table_of, write_and_print

        if not (self.folder / "metrics.json").exists():
            raise self._missing("evaluate", f"no metrics.json in {self.folder}")
        write_and_print([self.folder], self.folder, self.folder.name, table_of(self.cfg))

    # What stages are found by.

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
        # A server says nothing of how its checkpoint was trained.
        trained = self.record["identities"].get("train") if naming.trains_here(self.cfg) else None
        return naming.digest([nodes, naming.file_digest(data_file(self.cfg.data)), trained, naming.code_version(rooms)])

    def _preferences(self) -> Path:
        """The folder with the rows to train on; a UserError says how to make it."""
        folder = self._dataset_folder("search,dataset")
        if not _done(folder):
            raise self._missing("dataset", "no preference data for this configuration")
        self._leave("dataset", folder)
        return folder / "preferences"

    def _start_checkpoint(self, data: Path) -> Path:
        """The SFT checkpoint a preference algorithm starts from: that of the sweep's own SFT cell, or one trained for it and shared."""
        from cso_lab.training.train import train

        cfg = self.cfg.copy()
        # Only the algorithm changes; what interpolates from it (Table 14) follows.
        cfg.algorithm = OmegaConf.load(naming.CONF / "algo" / "sft.yaml")
        identity = self._train_identity(cfg, data)
        if sibling := self._sibling("train", identity, "checkpoint"):
            return sibling / "checkpoint"
        folder = self._shared_folder("train", identity)
        self._shared("start", folder, lambda: bool(train(cfg, data, folder)))
        return folder / "checkpoint"

    # Keeping account.

    def _shared(self, stage: str, folder: Path, work: Callable[[], bool]) -> Path:
        """Do `work` in a shared folder unless it is done, one process at a time; it returns whether nothing is left to do."""
        from filelock import FileLock

        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not _done(folder):
                began = time.perf_counter()
                if work():
                    write_json(folder / "done.json", {"seconds": round(time.perf_counter() - began, 1), **_versions()})
        self._leave(stage, folder)
        return folder

    def _finished(self, stage: str, identity: str, result: Path) -> bool:
        """Whether the run folder holds this stage's result for this very configuration, data and code."""
        if finished := self.record["identities"].get(stage) == identity and result.exists():
            self._leave(stage, self.folder)
        return finished

    def _sibling(self, stage: str, identity: str, result: str) -> Path | None:
        """A cell beside this one that has this very result: cells may differ in nothing but what comes after a stage."""
        for file in sorted(self.folder.parent.glob("*/run.json")):
            if file.parent != self.folder and (file.parent / result).exists():
                if read_json(file)["identities"].get(stage) == identity:
                    return file.parent
        return None

    def _taken_over(self, stage: str, identity: str, result: str) -> Path | None:
        """The sibling whose result is this cell's too, noted as such; None when there is none, or it is to be done again."""
        sibling = None if self.cfg.rerun else self._sibling(stage, identity, result)
        if sibling:
            self.record["identities"][stage] = identity
            self._leave(stage, sibling)
        return sibling

    @contextmanager
    def _timed(self, stage: str, identity: str, discard: tuple[str, ...] = ()):
        """Around the work of a cell's own stage. What another configuration left half done in the folder is not continued."""
        under_way = self.folder / f".{stage}"
        if not under_way.exists() or under_way.read_text() != identity:
            for name in (*discard, *_LEFTOVERS.get(stage, ())):
                path = self.folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            under_way.write_text(identity)
        self.record["identities"].pop(stage, None)
        began = time.perf_counter()
        yield
        under_way.unlink()
        self.record["identities"][stage] = identity
        self.record["seconds"][stage] = round(time.perf_counter() - began, 1)
        self.record |= {"seed": self.cfg.seed, "overrides": _overrides(), **_versions()}
        self._leave(stage, self.folder)

    def _left(self, stage: str) -> Path:
        """Where a stage has left its files; the run folder as long as it has not run."""
        file = self.folder / "stages.json"
        return Path((read_json(file) if file.exists() else {}).get(stage, self.folder))

    def _leave(self, stage: str, folder: Path) -> None:
        """Note in the run folder where a stage has its files."""
        file = self.folder / "stages.json"
        write_json(file, (read_json(file) if file.exists() else {}) | {stage: str(folder.resolve())})
        write_json(self._record_file, self.record)

    def _missing(self, stages: str, what: str, parts: list[str] | None = None) -> UserError:
        """What is missing and the command that makes it; `parts` are those of a search that are still to be run."""
        overrides = [o for o in _overrides() if not o.startswith("stages=") and not (parts and o.startswith("data.shard="))]
        if parts:
            overrides.append(f"data.shard={','.join(parts)}")
        command = " ".join(
            [
                "python run.py -m" if parts and len(parts) > 1 else "python run.py",
                f"'stages=[{stages}]'",
                *(f"'{o}'" if "[" in o or " " in o else o for o in overrides),
            ]
        )
        return UserError(f"{what}; make them with: {command}")

    def _dialogues(self):
        """(corpus, training dialogues, test dialogues)."""
        from cso_lab.corpora import load

        corpus = load(self.cfg.data)
        return corpus, *corpus.split(self.cfg.data.test_share, self.cfg.data.split_seed)

    def _strategies(self):
        from cso_lab.strategies import strategy_set

        return strategy_set(self.cfg.data.strategies)

    def _cell(self) -> dict:
        cfg = self.cfg
        trained = naming.trains(cfg)
        return {
            "backbone": cfg.backbone.name,
            "label": cfg.backbone.label,
            "family": None if naming.is_api(cfg) else cfg.backbone.family,
            "algo": cfg.algorithm.name,
            "algo_label": cfg.algorithm.label,
            "mode": cfg.finetune_mode.name if trained else None,
            "mode_label": cfg.finetune_mode.label if trained else None,
            "start_from": cfg.algorithm.start_from,
            "decoding": cfg.decoding.name,
            "decoding_label": cfg.decoding.label,
            "seed": cfg.seed if naming.uses_seed(cfg) else None,
            "variant": naming.variant(cfg),
            "varied": naming.varied(cfg, _overrides()),
        }

    def _context(self) -> dict:
        cfg = self.cfg
        trained = naming.trains(cfg)
        data = {"data": cfg.data.name, "constrain": cfg.generation.constrain, "max_new_tokens": cfg.generation.max_new_tokens}
        data["testset"] = cfg.evaluation.testset
        if path := naming.other_path(cfg):
            data["path"] = path
        if cfg.generation.engine == "server":
            data |= self._served()
        if not trained:
            return data
        file = self._left("train") / "training.json"
        training = read_json(file) if file.exists() else {}
        return data | {
            "roles": cfg.roles.name,
            "roles_notice": cfg.roles.notice,
            "mcts": cfg.mcts.name,
            "preferences": cfg.preferences.name,
            "preference_dialogues": self._dialogues_used(),
            "training_rows": training.get("rows"),
            "training_steps": f"{training.get('steps')} of {cfg.training.batch_size} rows",
        }

    def _dialogues_used(self) -> int | None:
        """How many expanded dialogues (valid paths) the cell was trained on, the axis of Figure 4; None where that is not known here."""
        file = self._left("dataset") / "statistics.json"
        return read_json(file)["table5"]["per_path"]["all"]["dialogues"] if file.exists() else None

    def _served(self) -> dict:
        """What a server was asked, where it is no provider's own, and what it took."""
        from urllib.parse import urlsplit

        client, file = self.cfg.generation.client, self.folder / "usage.json"
        usage = read_json(file)["usage"] if file.exists() else None
        used = usage and {
            "calls": sum(usage["calls"].values()),
            "tokens": usage["prompt_tokens"] + usage["completion_tokens"],
            "dollars": "unknown" if usage["unpriced"] else round(usage["cost"], 6),
        }
        # Without what may stand before the host: a user name, a password.
        address = client.api_base and urlsplit(client.api_base).netloc.rpartition("@")[2]
        return {"served": client.model, "served_at": address, "usage": used}


# What a stage leaves in the run folder while it is under way.
_LEFTOVERS = {"train": ("checkpoint", "steps", "train_log.jsonl", "workers"), "generate": (".predictions.jsonl.partial",)}


def _done(folder: Path) -> bool:
    return (folder / "done.json").exists()


def _overrides() -> list[str]:
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _versions() -> dict:
    """Versions of the packages and the commit of the project, as far as they can be told."""

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return {"versions": {package: installed(package) for package in _PACKAGES}, "commit": git.stdout.strip() or None}
