"""Memory of trainings, as `estimate=true` predicts it and as it is measured: LoRA and full, with and without checkpointed layers.

    python -m experiments.benchmarks.memory [--algo sft] [--backbone smollm2] [--cases lora,full/checkpointed] [--json] [Hydra overrides]

Each case is a whole training of two steps of 4 rows in a process of its own, on the CPU; rows have ESC-Pro's shape. Measured are the
bytes in use at most: those that malloc has given out (sampled all through the training, of everything in the process) beyond what there
was before the training, and weights that are mapped from their file. The process's resident memory is shown too. It is larger, since
freed memory is kept and has gaps (`cso_lab/training/allocator.py`). Needs Linux with glibc 2.33 or later.
"""

import argparse
import ctypes
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from experiments.benchmarks.steps import ALGOS, config, give_back_memory, write_rows

CASES = ("lora", "lora/checkpointed", "full", "full/checkpointed")
_ROWS, _STEPS = 4, 2
# Seconds between two looks at the memory, at least, and the share of the time that they take at most: malloc waits for them.
_INTERVAL, _SHARE = 0.005, 1 / 10


@dataclass(frozen=True)
class Case:
    """Bytes that a training takes at most: predicted, measured in use, and measured as the growth of the process's resident memory."""

    predicted: int
    measured: int
    resident: int

    @property
    def error(self) -> float:
        """The prediction's relative error."""
        return self.predicted / self.measured - 1


def compare(case: str, algo: str, data: Path, overrides: Sequence[str]) -> Case:
    """Returns what one of CASES takes on the rows in `data`, found in a process of its own."""
    mode, _, checkpointed = case.partition("/")
    line = [f"mode={mode}", f"algo={algo}", f"training.gradient_checkpointing={str(bool(checkpointed)).lower()}", *overrides]
    command = [sys.executable, "-m", "experiments.benchmarks.memory", "--apart", str(data), *line]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Case(**json.loads(done.stdout.strip().splitlines()[-1]))


def write_step_rows(folder: Path, algo: str, rows_a_step: int = _ROWS) -> None:
    """Writes as many rows as the steps of a case take."""
    rows = {"sft": "sft", "kto": "kto"}.get(algo, "pairs")
    write_rows(folder, 2)
    file = folder / f"{rows}.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[: rows_a_step * _STEPS]), encoding="utf-8")


def _apart(data: Path, overrides: Sequence[str]) -> Case:
    fixed = ["backbone=smollm2", "hardware=cpu", f"training.batch_size={_ROWS}", f"training.max_steps={_STEPS}"]
    with config(*fixed, *overrides) as cfg, tempfile.TemporaryDirectory() as out:
        predicted = _predicted(cfg, data)
        give_back_memory()
        measured, resident = _measured(cfg, data, Path(out))
    return Case(predicted, measured, resident)


def _predicted(cfg, data: Path) -> int:
    from transformers import AutoConfig

    from cso_lab.core.files import read_jsonl
    from cso_lab.training.backbone import load_chat_format, prepare_backbone, quiet_libraries
    from cso_lab.training.estimate import estimate_training
    from cso_lab.training.token_plan import plan_tokens

    quiet_libraries()
    tokens = plan_tokens(cfg, read_jsonl(data / f"{cfg.algorithm.rows}.jsonl"), load_chat_format(cfg))
    return estimate_training(cfg, AutoConfig.from_pretrained(prepare_backbone(cfg)), tokens, "cpu").memory.total


def _measured(cfg, data: Path, out: Path) -> tuple[int, int]:
    """Returns the bytes in use and resident at most during the training, beyond those before it."""
    from hydra.utils import instantiate
    from transformers import TrainerCallback

    from cso_lab.training import train

    instantiate(cfg.algorithm.trainer, _partial_=True)  # imports the trainer
    mapped = 0

    class Mapped(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            nonlocal mapped
            mapped = _mapped_weights()

    build = train.build_trainer

    def build_and_watch(*arguments):
        trainer = build(*arguments)
        trainer.add_callback(Mapped())
        return trainer

    train.build_trainer = build_and_watch
    in_use, resident = _in_use(), _resident()
    with _sampled() as most:
        train.train_here(cfg, data, out, None)
    return most["in_use"] - in_use + mapped, most["resident"] - resident


@contextmanager
def _sampled() -> Iterator[dict[str, int]]:
    """Within it, the bytes in use and resident are looked at again and again; yields the most of each."""
    most, ended = {"in_use": 0, "resident": 0}, threading.Event()

    def sample() -> None:
        while not ended.is_set():
            began = time.perf_counter()
            most["in_use"] = max(most["in_use"], _in_use())
            most["resident"] = max(most["resident"], _resident())
            time.sleep(max(_INTERVAL, (time.perf_counter() - began) / _SHARE))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


class _Mallinfo(ctypes.Structure):
    """The struct of mallinfo2(3)."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names)


def _in_use() -> int:
    """Returns the bytes that malloc has given out and not taken back."""
    function = ctypes.CDLL(None).mallinfo2
    function.restype = _Mallinfo
    info = function()
    return info.uordblks + info.hblkhd


def _resident() -> int:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def _mapped_weights() -> int:
    """Returns the bytes in memory of weights that are mapped from their file, of which changed ones are copies."""
    total, of_weights = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            of_weights = line.endswith(".safetensors")
        elif of_weights and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", default="sft", choices=ALGOS)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--json", action="store_true", help="the last line is JSON")
    parser.add_argument("--apart", metavar="DATA", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as training.dtype=float32")
    options = parser.parse_args()
    if options.apart:
        print(json.dumps(vars(_apart(Path(options.apart), options.overrides))))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        write_step_rows(Path(folder), options.algo)
        print("| | predicted | measured in use | difference | resident |\n|---|---|---|---|---|", flush=True)
        for case in options.cases.split(","):
            found = results[case] = compare(case, options.algo, Path(folder), options.overrides)
            figures = (f"{found.predicted / 1e6:,.0f} MB", f"{found.measured / 1e6:,.0f} MB", f"{found.error:+.0%}")
            print(f"| {case} | {' | '.join(figures)} | {found.resident / 1e6:,.0f} MB |", flush=True)
    if options.json:
        print(json.dumps({case: vars(found) for case, found in results.items()}))


if __name__ == "__main__":
    main()
