"""One contender of the benchmark on GPUs, in a process of its own: TRL as it is with so many rows at once, or shared prefixes.

    python -m experiments.benchmarks.contender JOBS.json RESULTS.jsonl

Does one job after the other (see `Job`) and writes a line to RESULTS as each ends, so that what is done is not lost.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from cso_lab.training.allocator import freed_memory_kept
from experiments.benchmarks.random_models import random_weights, shape
from experiments.benchmarks.steps import Step, config, give_back_memory, memory_of, nudge

OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Job:
    """What to measure, and of which model. `kind` is one of `compare`, `measure`, `steady` and `generate`."""

    kind: str
    algo: str
    hub_id: str
    layers: int | None
    shrink: int
    vocabulary: int | None
    device: str
    overrides: list[str] = field(default_factory=list)
    # folder with the rows, and the file that a gradient is written to
    data: str = ""
    gradient: str = ""
    repeats: int = 1
    # no further repeat is begun after so many seconds
    seconds: float = 60.0
    parts: bool = False
    # of a generation: test turns and the tokens of each reply
    turns: int = 0
    new_tokens: int = 0


def compilations() -> dict:
    """How many graphs torch.compile has compiled in this process, and the seconds it took."""
    from torch._dynamo import utils

    return {
        "compilations": utils.counters["stats"]["unique_graphs"],
        "compile_seconds": round(utils.calculate_time_spent()["total_wall_time"], 3),
    }


def compare(job: Job) -> dict:
    """Loss and gradient of a step; the gradient is written to a file, since the other side's is computed by another process."""
    from safetensors.torch import save_file

    with _step(job) as step:
        nudge(step)
        _, loss = step.take()
        save_file({"gradient": step.gradient().float().cpu().contiguous()}, job.gradient)
        return {"loss": loss}


def measure(job: Job) -> dict:
    """The first step's memory and compilations, then the median time of warm ones, and where it goes."""
    compiled = compilations()
    with _step(job) as step:
        nudge(step)
        before, most = memory_of(step, update=True)
        at_first = _since(compiled)
        compiled = compilations()
        times, began = [], time.perf_counter()
        while len(times) < job.repeats and (not times or time.perf_counter() - began < job.seconds):
            seconds, loss = step.take(update=True)
            times.append(seconds)
        result = {
            "rows": step.rows,
            "rows_per_second": round(step.rows / statistics.median(times), 4),
            "seconds": [round(seconds, 4) for seconds in times],
            "tokens": step.tokens,
            "loss": loss,
            "gib": round(most / 2**30, 3),
            "gib_above_weights": round((most - before) / 2**30, 3),
            # the reference model's pass and the first step, and the warm steps
            "compiled_at_first": at_first,
            "compiled_later": _since(compiled),
        }
        return result | ({"parts": _parts(step)} if job.parts else {})


def steady(job: Job) -> dict:
    """Compilations over all steps of a training whose batches differ, and their share of its time."""
    with _step(job) as step:
        step.take(update=True)
        compiled, total, count = compilations(), 0.0, 0
        for batch in step.trainer.get_train_dataloader():
            step.batches = [batch]
            total += step.take(update=True)[0]
            count += 1
    since = _since(compiled)
    return {"steps": count, **since, "share_of_time": round(since["compile_seconds"] / total, 5)}


def generate(job: Job) -> dict:
    """Shared histories against plain generate, on the sample's test turns."""
    from cso_lab.training.backbone import load_model
    from experiments.benchmarks import generation

    with _random_weights(job) as cfg:
        prompts = generation.test_prompts(cfg, job.turns)
        model = load_model(cfg, None, dtype=cfg.training.dtype)
    return {"turns": len(prompts), "new_tokens": job.new_tokens} | generation.measure(
        model, prompts, job.new_tokens, job.repeats
    )


JOBS: dict[str, Callable[[Job], dict]] = {"compare": compare, "measure": measure, "steady": steady, "generate": generate}


@contextmanager
def _step(job: Job) -> Iterator[Step]:
    with _random_weights(job), tempfile.TemporaryDirectory() as out:
        step = Step(Path(job.data), Path(out), job.overrides)
        yield step
        step.trainer.accelerator.free_memory()


@contextmanager
def _random_weights(job: Job) -> Iterator[DictConfig]:
    """The job's configuration; within it the backbone it loads is a random one of the job's shape."""
    from cso_lab.training.backbone import load_tokenizer, quiet_libraries

    quiet_libraries()
    with config(*job.overrides) as cfg:
        tokens = len(load_tokenizer(cfg))
    with random_weights(shape(job.hub_id, job.layers, job.shrink, job.vocabulary, tokens), job.device):
        yield cfg


def _parts(step: Step) -> dict[str, float]:
    """Seconds by part of a whole step; with many batches that of the first, times their number, as profiles are large."""
    from experiments.benchmarks.parts import seconds_by_part

    vocabulary = step.trainer.model.get_output_embeddings().weight.shape[0]
    found = seconds_by_part(step, vocabulary, batches=1)
    return {part: round(seconds * (1 if part == "optimizer" else len(step.batches)), 4) for part, seconds in found.items()}


def _since(before: dict) -> dict:
    return {name: round(value - before[name], 3) for name, value in compilations().items()}


def _out_of_memory(error: Exception) -> bool:
    import torch

    # PyTorch's allocator for CPUs raises a plain RuntimeError.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def main(jobs: str, results: str) -> None:
    """Does the jobs of a file."""
    import torch

    torch.set_float32_matmul_precision("highest")
    work = [Job(**job) for job in json.loads(Path(jobs).read_text(encoding="utf-8"))]
    with Path(results).open("a", encoding="utf-8") as file, freed_memory_kept() if work[0].device == "cpu" else nullcontext():
        for job in work:
            try:
                outcome = JOBS[job.kind](job)
            except Exception as error:
                if not _out_of_memory(error):
                    raise
                outcome = {"failed": OUT_OF_MEMORY}
            print(json.dumps(outcome), file=file, flush=True)
            give_back_memory()


if __name__ == "__main__":
    main(*sys.argv[1:])
