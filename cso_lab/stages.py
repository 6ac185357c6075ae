"""Stage name -> function. The only place that knows them all; stages meet at files on disk and nowhere else."""

import shutil
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab import naming
from cso_lab.cell import cell, context, tracked_cell
from cso_lab.checks import STAGES, check
from cso_lab.dialogue import TEST_DIALOGUES
from cso_lab.errors import MissingKey, UserError
from cso_lab.files import write_json, write_jsonl
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
        asked = [stage for stage in STAGES if stage in self.cfg.stages]
        asked = [stage for stage in asked if naming.trains_here(self.cfg) or stage not in OF_TRAINING]
        if "inspect" in asked and (scorer := self._scorer()):
            scorer.check()  # before a search that takes hours, not after it
        for stage in asked:
            functions[stage]()

    def train(self) -> None:
        data = self._preferences()
        identity = self._train_identity(self.cfg, data)
        if self._finished("train", identity, self.folder / "checkpoint") or self._taken_over("train", identity, "checkpoint"):
            return
        from cso_lab.training.train import train

        start = self._start_checkpoint(data) if self.cfg.algorithm.start_from == "sft" else None
        with self._timed("train", identity):
            write_json(self.folder / "training.json", train(self.cfg, data, self.folder, start))

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

    def generate(self) -> None:
        checkpoint = None
        if naming.trains_here(self.cfg):
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
