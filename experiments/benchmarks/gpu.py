"""Training with shared prefixes against TRL as it is, on a GPU, for models of the shapes of the paper's backbones.

    python -m experiments.benchmarks.gpu [--models llama,qwen,gemma] [--algos dpo,sft,...] [--layers N] [Hydra overrides]

Needs no network and no weights: the models have random weights, made on the device, and rows of ESC-Pro's shape are tokenized by the
embedded model's tokenizer, whose ids are valid in all three vocabularies. Training is by LoRA.

First both sides compute the same rows in float32 on two layers. Where losses or gradients differ, no speedup is printed, and the exit
status is 1. Then each contender runs in a process of its own: shared prefixes; TRL as it is with 1, 2, 4, 8 and 16 rows at once, of which
the fastest is measured again; the same with FlashAttention-2 where it is installed. Times are medians of 5 warm optimizer steps. A
contender that runs out of memory is named, and the others go on; so is one for which a model's minutes are used up.

A table a model, and one line of JSON at the end; lines of progress, one at least every 20 seconds, go to standard error. Without a GPU:

    python -m experiments.benchmarks.gpu --device cpu --layers 2 --shrink 4 --vocabulary 49152 --rows 4 --repeats 1 --minutes 60

where `--shrink` makes the models narrower, as the published widths and vocabularies take 6 GB of float32 for two layers alone.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from experiments.benchmarks.apart import TIME_IS_UP, run_apart
from experiments.benchmarks.contender import OUT_OF_MEMORY, Job
from experiments.benchmarks.steps import ALGOS, config, stock_overrides, write_rows

MODELS = ("llama", "qwen", "gemma")
# Relative differences in float32 up to which both sides are the same computation; a wrong mask makes them a hundred times larger.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3
# Rows, and rows at once, on which losses and gradients are compared, and rows on which TRL's fastest number of rows at once is found.
COMPARED_ROWS, COMPARED_AT_ONCE, TRIED_ROWS = 8, 2, 16
# Their losses are means over rows: shared prefixes may take all rows at once. The others' depend on which rows are taken together.
ADDITIVE = ("dpo", "ipo", "simpo")
# KTO's trainer refuses to take a single row.
LEAST_AT_ONCE = {"kto": 2}


@dataclass(frozen=True)
class Setting:
    """What a command line asks for."""

    device: str
    layers: int | None
    shrink: int
    vocabulary: int | None
    rows: int
    repeats: int
    sizes: tuple[int, ...]
    minutes: float
    steps: int
    turns: int
    new_tokens: int
    dtype: str
    algos: tuple[str, ...]
    profiled: tuple[str, ...]
    overrides: tuple[str, ...]


class Benchmark:
    """All contenders of one model. `data` holds the rows, `many` those of a whole training; `say` gets lines of progress."""

    def __init__(self, setting: Setting, model: str, tokenizer: str, data: Path, many: Path, say: Callable[[str], None]):
        self.setting, self.model, self.data, self.many, self.say = setting, model, data, many, say
        self.deadline = time.monotonic() + 60 * setting.minutes
        with config(f"backbone={model}") as cfg:
            self.hub_id = cfg.backbone.path
        hardware = "gpu" if setting.device == "cuda" else "cpu"
        self.common = [f"backbone={model}", f"backbone.path='{tokenizer}'", f"hardware={hardware}"]

    def run(self) -> dict:
        """Everything measured of this model, by algorithm."""
        exactness, agreement = self.compare()
        ours = self.ours()
        stock = self.stock([], "TRL")
        steady = self.steady()
        generation = self.generation()
        flash = {}
        if _installed("flash_attn"):
            flash = self.stock(["backbone.attn_implementation=flash_attention_2"], "TRL with FlashAttention-2")
        algos = {}
        for algo in self.setting.algos:
            contenders = {"ours": ours[algo], "trl": stock[algo], **({"trl_flash": flash[algo]} if flash else {})}
            algos[algo] = {
                **summary(contenders, exactness[algo]["exact"]),
                "exactness": exactness[algo],
                "agreement": agreement[algo],
                **contenders,
            }
        return {"algos": algos, "steady": steady, "generation": generation}

    def compare(self) -> tuple[dict[str, dict], dict[str, dict]]:
        """Both sides' losses and gradients on the same rows: in float32 on two layers, and of the model and in the type that are timed."""
        exactness, agreement = {}, {}
        with tempfile.TemporaryDirectory() as folder:
            sides = []
            for side in ("shared prefixes", "TRL"):
                jobs = [
                    self._compared(algo, side == "TRL", layers, dtype, Path(folder))
                    for layers, dtype in ((2, "float32"), (self.setting.layers, self.setting.dtype))
                    for algo in self.setting.algos
                ]
                outcomes = self._run(jobs, f"{side}, losses and gradients")
                sides.append([{**outcome, "gradient": job.gradient} for job, outcome in zip(jobs, outcomes, strict=True)])
            found = [differences(ours, stock) for ours, stock in zip(*sides, strict=True)]
        for number, algo in enumerate(self.setting.algos):
            exactness[algo] = {**found[number], "exact": same(found[number])}
            agreement[algo] = found[number + len(self.setting.algos)]
        return exactness, agreement

    def ours(self) -> dict[str, dict]:
        """Shared prefixes, all rows of a step at once."""
        jobs = [self._timed(algo, [], self.setting.repeats, self.setting.rows) for algo in self.setting.algos]
        return dict(zip(self.setting.algos, self._run(jobs, "shared prefixes"), strict=True))

    def stock(self, overrides: list[str], title: str) -> dict[str, dict]:
        """TRL as it is at its fastest number of rows at once, which is found on fewer rows; `tried` has what was found there."""
        tried = self._tried(overrides, title)
        best = {algo: max(outcomes, key=lambda size: _rate(outcomes[size])) for algo, outcomes in tried.items()}
        found: dict[str, dict] = {}
        for size in sorted(set(best.values())):
            algos = [algo for algo in best if best[algo] == size and "failed" not in tried[algo][size]]
            jobs = [
                self._timed(algo, [*stock_overrides(size), *overrides], self.setting.repeats, self.setting.rows)
                for algo in algos
            ]
            outcomes = self._run(jobs, f"{title} at its fastest, {size} at once")
            found |= {algo: {"at_once": size, **outcome} for algo, outcome in zip(algos, outcomes, strict=True)}
        return {algo: {**found.get(algo, list(tried[algo].values())[-1]), "tried": tried[algo]} for algo in tried}

    def _tried(self, overrides: list[str], title: str) -> dict[str, dict[int, dict]]:
        """One warm step of TRL by algorithm and number of rows at once, as far as more may be faster; a single number is not tried."""
        rows = min(self.setting.rows, TRIED_ROWS)
        sizes = {
            algo: [size for size in self.setting.sizes if size >= LEAST_AT_ONCE.get(algo, 1)] for algo in self.setting.algos
        }
        tried: dict[str, dict[int, dict]] = {algo: {sizes[algo][0]: {}} if len(sizes[algo]) == 1 else {} for algo in sizes}
        for size in self.setting.sizes:
            algos = [
                algo
                for algo in tried
                if len(sizes[algo]) > 1 and size in sizes[algo] and worth_trying(list(tried[algo].values()))
            ]
            jobs = [replace(self._timed(algo, [*stock_overrides(size), *overrides], 1, rows), parts=False) for algo in algos]
            for algo, outcome in zip(algos, self._run(jobs, f"{title}, {size} at once"), strict=True):
                tried[algo][size] = outcome
        return tried

    def steady(self) -> dict | None:
        """What is compiled over a training of so many steps by shared prefixes, whose batches differ."""
        if not self.setting.steps:
            return None
        algo = self.setting.algos[0]
        job = self._job(
            "steady", algo, [f"training.batch_size={self.setting.rows}", f"training.max_steps={self.setting.steps}"]
        )
        return {"algo": algo, **self._run([replace(job, data=str(self.many))], f"{self.setting.steps} steps")[0]}

    def generation(self) -> dict | None:
        """Replies with shared histories against plain generate."""
        if not self.setting.turns:
            return None
        job = self._job("generate", "base", [])
        job = replace(job, turns=self.setting.turns, new_tokens=self.setting.new_tokens, repeats=min(3, self.setting.repeats))
        return self._run([job], "generation")[0]

    def _compared(self, algo: str, stock: bool, layers: int | None, dtype: str, folder: Path) -> Job:
        rows = min(self.setting.rows, COMPARED_ROWS)
        at_once = min(rows, COMPARED_AT_ONCE)
        if stock:
            overrides = stock_overrides(at_once)
        else:
            overrides = [] if algo in ADDITIVE else [f"training.per_device_batch_size={at_once}"]
        job = self._job("compare", algo, [f"training.batch_size={rows}", f"training.dtype={dtype}", *overrides])
        return replace(
            job, layers=layers, gradient=str(folder / f"{'trl' if stock else 'ours'}-{algo}-{dtype}-{layers}.safetensors")
        )

    def _timed(self, algo: str, overrides: list[str], repeats: int, rows: int) -> Job:
        job = self._job("measure", algo, [f"training.batch_size={rows}", *overrides])
        # The contenders still to come need most of a model's time: none repeats its steps for longer than its share.
        seconds = max(0.0, self.deadline - time.monotonic()) / (3 * len(self.setting.algos))
        return replace(job, repeats=repeats, seconds=seconds, parts=algo in self.setting.profiled)

    def _job(self, kind: str, algo: str, overrides: list[str]) -> Job:
        shared = [f"algo={algo}", "mode=lora", f"training.dtype={self.setting.dtype}", "training.max_prompt_length=4096"]
        # The reference model reads the rows of the step and no others.
        shared += ["training.max_steps=1", *self.common, *self.setting.overrides, *overrides]
        setting = self.setting
        return Job(
            kind,
            algo,
            self.hub_id,
            setting.layers,
            setting.shrink,
            setting.vocabulary,
            setting.device,
            shared,
            data=str(self.data),
        )

    def _run(self, jobs: Sequence[Job], title: str) -> list[dict]:
        return run_apart(jobs, f"{self.model}: {title}", self.deadline, self.say)


def worth_trying(outcomes: Sequence[dict]) -> bool:
    """Whether more rows at once may be faster: not after memory ran out, nor after the last two were slower than the best before."""
    if any("failed" in outcome for outcome in outcomes):
        return False
    rates = list(map(_rate, outcomes))
    return len(rates) < 3 or max(rates[-2:]) >= max(rates[:-2])


def same(difference: dict) -> bool:
    """Whether both sides are the same computation, by their differences in float32."""
    if "failed" in difference:
        return False
    return difference["loss_rel_diff"] <= LOSS_TOLERANCE and difference["grad_rel_diff"] <= GRADIENT_TOLERANCE


def differences(ours: dict, stock: dict) -> dict:
    """Both losses, the relative differences of losses and gradients, and the gradients' cosine, or why there are none."""
    from safetensors.torch import load_file

    for side, outcome in (("shared prefixes", ours), ("TRL", stock)):
        if "failed" in outcome:
            return {"failed": outcome["failed"], "side": side}
    own, other = (load_file(outcome["gradient"])["gradient"].double() for outcome in (ours, stock))
    return {
        "loss": ours["loss"],
        "trl_loss": stock["loss"],
        "loss_rel_diff": abs(ours["loss"] - stock["loss"]) / abs(stock["loss"]),
        "grad_rel_diff": ((own - other).norm() / other.norm()).item(),
        "gradient_cosine": (own @ other / (own.norm() * other.norm())).item(),
    }


def summary(contenders: dict[str, dict], exact: bool) -> dict:
    """Speed, tokens and memory of shared prefixes against the fastest of the others; no speedup unless both compute the same."""
    ours, others = contenders["ours"], {name: outcome for name, outcome in contenders.items() if name != "ours"}
    fastest = max(others, key=lambda name: _rate(others[name]))
    stock = others[fastest]
    if not _rate(ours) or not _rate(stock):
        return {"speedup": None}
    return {
        "speedup": round(_rate(ours) / _rate(stock), 2) if exact else None,
        "against": fastest,
        "token_ratio": round(stock["tokens"] / stock["rows"] / (ours["tokens"] / ours["rows"]), 2),
        "memory_ratio": round(ours["gib"] / stock["gib"], 3),
    }


def _rate(outcome: dict) -> float:
    return outcome.get("rows_per_second", 0.0)


def machine(device: str) -> dict:
    """The card or processor, its driver, and the versions of the libraries."""
    import torch

    packages = ("torch", "transformers", "trl", "peft", "flash_attn")
    found = {"versions": {name: _installed(name) for name in packages if _installed(name)}}
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True).stdout.split()
        return {
            "device": card.name,
            "gib": round(card.total_memory / 2**30, 1),
            "driver": driver[0] if driver else None,
            **found,
        }
    name = torch.cpu.get_capabilities().get("cpu_name", "CPU")
    return {"device": name, "threads": torch.get_num_threads(), "driver": None, **found}


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def failures(models: dict[str, dict]) -> list[str]:
    """What makes the exit status 1: float32 that differs, and contenders that broke off for another reason than memory or time."""
    found = []
    for model, result in models.items():
        for algo, outcome in result["algos"].items():
            if "failed" not in outcome["exactness"] and not outcome["exactness"]["exact"]:
                found.append(f"{model}, {algo}: differs from TRL in float32, so no speedup is printed: {outcome['exactness']}")
        found += [f"{model}: {reason}" for reason in _reasons(result) if reason not in (OUT_OF_MEMORY, TIME_IS_UP)]
    return found


def _reasons(result: object) -> Iterator[str]:
    """Why contenders failed, wherever in the results that stands, each once."""
    if isinstance(result, dict):
        nested = dict.fromkeys(reason for value in result.values() for reason in _reasons(value))
        yield from dict.fromkeys([*([result["failed"]] if "failed" in result else []), *nested])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="which, separated by commas")
    parser.add_argument("--algos", default="dpo,sft,ipo,kto,simpo,orpo", help="which, separated by commas")
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu"))
    parser.add_argument("--layers", type=int, help="so many layers, for small cards; default: all")
    parser.add_argument("--shrink", type=int, default=1, help="divide widths and numbers of heads by this, for small machines")
    parser.add_argument(
        "--vocabulary", type=int, help="tokens of the output layer, at least the tokenizer's; default: the model's own"
    )
    parser.add_argument("--tokenizer", default="smollm2", help="the backbone whose tokenizer is used; its weights are not")
    parser.add_argument("--dtype", default="bfloat16", help="bfloat16 or float32, of what is timed")
    parser.add_argument("--rows", type=int, default=32, help="rows of an optimizer step")
    parser.add_argument("--repeats", type=int, default=5, help="warm steps of which the median is taken")
    parser.add_argument("--sizes", default="1,2,4,8,16", help="rows at once that TRL is tried with")
    parser.add_argument("--minutes", type=float, default=8, help="a model; what is not done by then is left out and named")
    parser.add_argument("--steps", type=int, help="steps over which compilations are counted; default: 20 on a GPU, else none")
    parser.add_argument("--turns", type=int, default=48, help="test turns that replies are generated for; 0: no generation")
    parser.add_argument("--new-tokens", type=int, default=32, help="tokens of each of these replies")
    parser.add_argument("--parts", default="dpo", help="algorithms of which the time is shown by part, separated by commas")
    parser.add_argument(
        "overrides", nargs="*", help="Hydra overrides for both sides, such as training.gradient_checkpointing=false"
    )
    options = parser.parse_args(arguments)
    models, algos = _known(parser, "model", options.models, MODELS), _known(parser, "algorithm", options.algos, ALGOS)
    # TRL is tried on the first of the rows, in whole batches.
    tried_rows = min(options.rows, TRIED_ROWS)
    sizes = tuple(size for size in map(int, options.sizes.split(",")) if tried_rows % size == options.rows % size == 0)
    if not sizes or max(sizes) < max(LEAST_AT_ONCE.get(algo, 1) for algo in algos):
        parser.error(f"--sizes: none of {options.sizes} divides {options.rows} rows and is 2 or more for kto")
    device = _device(parser, options.device)
    setting = Setting(
        device=device,
        layers=options.layers,
        shrink=options.shrink,
        vocabulary=options.vocabulary,
        rows=options.rows,
        repeats=options.repeats,
        sizes=sizes,
        minutes=options.minutes,
        steps=(20 if device == "cuda" else 0) if options.steps is None else options.steps,
        turns=options.turns,
        new_tokens=options.new_tokens,
        dtype=options.dtype,
        algos=algos,
        profiled=tuple(options.parts.split(",")),
        overrides=tuple(options.overrides),
    )
    results = run(setting, models, options.tokenizer)
    print(json.dumps(results))
    if failed := failures(results["models"]):
        raise SystemExit("\n".join(failed))


def run(setting: Setting, models: Sequence[str], tokenizer_of: str) -> dict:
    """Runs the benchmark of each model and shows its table; returns everything measured, with the machine's name and the date."""
    from cso_lab.training.backbone import prepare_backbone
    from experiments.benchmarks.gpu_tables import show

    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {text}", file=sys.stderr, flush=True)

    say("tokenizer")
    with config(f"backbone={tokenizer_of}") as cfg:
        tokenizer = str(Path(prepare_backbone(cfg)).resolve())
    say("rows")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        data, many = Path(folder) / "rows", Path(folder) / "many"
        write_rows(data, max(2, setting.rows // 4))
        if setting.steps:
            write_rows(many, max(2, setting.rows * setting.steps // 15))
        for model in models:
            results[model] = Benchmark(setting, model, tokenizer, data, many, say).run()
            show(model, setting.dtype, results[model])
    date = datetime.now(UTC).date().isoformat()
    settings = {
        name: getattr(setting, name) for name in ("layers", "shrink", "vocabulary", "rows", "repeats", "dtype", "overrides")
    }
    return {"date": date, **machine(setting.device), "setting": settings, "models": results}


def _known(parser: argparse.ArgumentParser, what: str, names: str, valid: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(names.split(","))
    if unknown := set(chosen) - set(valid):
        parser.error(f"no such {what}: {', '.join(sorted(unknown))}; valid: {', '.join(valid)}")
    return chosen


def _device(parser: argparse.ArgumentParser, name: str) -> str:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is visible here: use --device cpu")
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()
