"""Stage name -> function. The only place that knows them all; stages meet at files on disk and nowhere else."""

import shutil
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab.cell import cell, context, tracked_cell
from cso_lab.checks import STAGES, check
from cso_lab.dialogue import TEST_DIALOGUES
from cso_lab.errors import MissingKey, UserError
from cso_lab.files import read_json, write_json, write_jsonl
from cso_lab.pipeline.settings import is_api, start_of, trains_here
from cso_lab.shared_stages import SharedStages
from cso_lab.tracking import Tracker, tracker

FAILED = "failed.json"
# What a cell that trains nothing here has no use for.
OF_TRAINING = ("search", "dataset", "inspect", "train")


def run(cfg: DictConfig, folder: Path, sweeping: bool) -> None:
    """Run the stages of one cell into `folder`. In a sweep a failure is left in failed.json, so that it stops no other cell."""
    from filelock import FileLock

    try:
        check(cfg)
        if cfg.report.folder:
            return _report_folder(cfg, folder)
        with FileLock(folder / ".lock"):  # the same cell started twice: the second waits, and finds it finished
            folder.joinpath(FAILED).unlink(missing_ok=True)
            if cfg.estimate:
                return Run(cfg, folder).estimate()
            with tracker(cfg.tracking, tracked_cell(cfg, folder)) as tracking:
                Run(cfg, folder, sweeping, tracking).stages()
    except Exception as error:
        if not sweeping:
            raise
        from cso_lab.explain import explain_or_show, said

        known = explain_or_show(error)
        reason = str(known or said(error))
        write_json(folder / FAILED, {"reason": reason, "needs_key": isinstance(known, MissingKey) and is_api(cfg)})
        print(f"error: {folder.name}: {reason}", file=sys.stderr)


def _report_folder(cfg: DictConfig, folder: Path) -> None:
    from cso_lab.reporting.sweeps import report_again

    if not report_again(cfg, folder):
        raise SystemExit(1)


class Run(SharedStages):
    """One cell: its configuration, its folder, and which folder each of its stages has its files in."""

    def __init__(self, cfg: DictConfig, folder: Path, sweeping: bool = False, tracking: Tracker | None = None):
        super().__init__(cfg, folder, tracking)
        self.sweeping = sweeping

    def stages(self) -> None:
        """What `cfg.stages` names, in the order in which stages feed one another."""
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.cfg, self.folder / "config.yaml", resolve=True)
        if self.cfg.rerun:
            self.record["identities"].clear()
        functions = {
            "search": self.search,
            "dataset": self.dataset,
            "inspect": self.inspect,
            "train": self.train,
            "generate": self.generate,
            "evaluate": self.evaluate,
            "report": self.report,
        }
        asked = self._asked()
        if unfinished := self.unfinished():
            from cso_lab.pipeline.preflight import preflight

            preflight([(self.cfg, self.folder, unfinished)])
        if "inspect" in asked and (scorer := self._scorer()):
            scorer.check()  # before a search that takes hours, not after it
        for stage in asked:
            functions[stage]()

    def _asked(self) -> list[str]:
        """The stages that `cfg.stages` names and that this cell has, in order."""
        asked = [stage for stage in STAGES if stage in self.cfg.stages]
        return [stage for stage in asked if trains_here(self.cfg) or stage not in OF_TRAINING]

    def unfinished(self) -> list[str]:
        """Those of train and generate that are asked for and not finished; writes nothing."""
        asked = [stage for stage in self._asked() if stage in ("train", "generate")]
        if not asked or self.cfg.rerun:
            return asked
        try:
            if "train" in asked and self._trained():
                asked.remove("train")
            if "train" not in asked and self._has("generate", self._generate_identity(), self.folder / "predictions.jsonl"):
                asked.remove("generate")
        except UserError:
            # What an earlier stage leaves is missing. Where that is not run either, the first stage says so.
            return asked if {"search", "dataset"} & set(self._asked()) else []
        return asked

    def _trained(self) -> bool:
        """Whether the cell's training is finished, here or in a cell beside it; a UserError where there is no dataset to train on."""
        identity = self._train_identity(self.cfg, self._finished_dataset() / "preferences")
        return self._has("train", identity, self.folder / "checkpoint") or bool(self._sibling("train", identity, "checkpoint"))

    def train(self) -> None:
        data = self._preferences()
        identity = self._train_identity(self.cfg, data)
        if self._finished("train", identity, self.folder / "checkpoint") or self._taken_over("train", identity, "checkpoint"):
            return
        with self._timed("train", identity):
            self._train(self.cfg, data, self.folder)

    def _train(self, cfg: DictConfig, data: Path, folder: Path) -> bool:
        """Train into `folder`; training.json tells of it, and of the training it starts from."""
        from cso_lab.training.train import train

        start = self._start_checkpoint(cfg, data)
        before = {} if start is None else {"start": read_json(start.with_name("training.json"))}
        write_json(folder / "training.json", train(cfg, data, folder, start) | before)
        return True

    def _start_checkpoint(self, cfg: DictConfig, data: Path) -> Path | None:
        """The checkpoint that the algorithm of `cfg` starts from: that of the sweep's own cell of the same training, or one trained for it
        and shared. None where it starts from the backbone."""
        start = start_of(cfg)
        if start is None:
            return None
        identity = self._train_identity(start, data)
        if sibling := self._sibling("train", identity, "checkpoint"):
            return sibling / "checkpoint"
        folder = self._shared_place("train", identity)
        self._shared("start", folder, lambda: self._train(start, data, folder))
        return folder / "checkpoint"

    def generate(self) -> None:
        checkpoint = None
        if trains_here(self.cfg):
            checkpoint = self.left("train") / "checkpoint"
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
            raise UserError(
                f"data.test_share={self.cfg.data.test_share} leaves no test dialogue to generate for: raise it, or give data.test_path=FILE"
            )
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
        identity = self._evaluate_identity(predictions, drawn)
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
            write_json(self.folder / "metrics.json", {"cell": cell(self.cfg), **scores, "context": context(self.cfg, self)})

    def report(self) -> None:
        if self.sweeping:
            return  # the sweep's own report comes once, at its end
        from cso_lab.reporting.cells import INSPECTION_FILE
        from cso_lab.reporting.report import write_and_print
        from cso_lab.reporting.sweeps import table_of

        if not any((self.folder / name).exists() for name in ("metrics.json", INSPECTION_FILE)):
            raise self._missing("evaluate", f"no metrics.json in {self.folder}")
        write_and_print([self.folder], self.folder, self.folder.name, table_of(self.cfg))
