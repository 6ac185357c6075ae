"""Training with shared prefixes against TRL as it is: one optimizer step's forward and backward pass on the same ESC-Pro-shaped rows.

    python -m experiments.benchmarks.training [--algos dpo,sft] [--mode lora] [--batching tree|random] [--memory] [--json] [Hydra overrides]

Dialogues have 7 supporter turns with 2.6 dispreferred siblings each, utterances 17 to 29 words, prompts the real system prompt.
Stock TRL runs at its fastest per-device batch of 1, 2, 4 and 8 (`--stock-batches`), found on 8 rows in processes of their own: 8 pairs in
float32 do not fit into 24 GB. Both sides then alternate over the whole step, and medians are compared;
loss and gradients are compared on the same batches.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cso_lab.training.allocator import freed_memory_kept
from experiments.benchmarks.steps import ALGOS, Step, give_back_memory, memory_of, nudge, stock_overrides, write_rows

# Rows on which stock's fastest per-device batch is found.
TRIED_ROWS = 8


def measure(data: Path, out: Path, common: list[str], per_device: int, repeats: int) -> dict:
    """Speedup over stock at this per-device batch, token ratio and differences of one algorithm."""
    stock = Step(data, out, [*common, *stock_overrides(per_device)])
    shared = Step(data, out, common)
    nudge(shared), nudge(stock)
    times = {"shared": [], "stock": []}
    for _ in range(repeats):
        times["shared"].append(shared.take_in_turn()[0])
        seconds, stock_loss = stock.take_in_turn()
        times["stock"].append(seconds)
    # On stock's own batches: SFT, KTO and ORPO average over the rows that are taken at once, so that others would not give the same.
    tokens, shared.batches = shared.tokens, stock.batches
    _, shared_loss = shared.take()
    difference = (shared.gradient() - stock.gradient()).norm() / stock.gradient().norm()
    shared_time, stock_time = (statistics.median(times[side]) for side in ("shared", "stock"))
    return {
        "speedup": round(stock_time / shared_time, 2),
        "token_ratio": round(stock.tokens / tokens, 2),
        "loss_rel_diff": abs(shared_loss - stock_loss) / abs(stock_loss),
        "grad_rel_diff": difference.item(),
        "rows_per_second": round(shared.rows / shared_time, 3),
        "stock_rows_per_second": round(stock.rows / stock_time, 3),
        "tokens": tokens,
    }


def fastest_stock(data: Path, common: list[str], sizes: list[int]) -> int:
    """The fastest per-device batch of TRL as it is; one that does not fit into memory is none."""
    if len(sizes) == 1:
        return sizes[0]
    tried = {
        size: apart("seconds", data, [*common, *stock_overrides(size), f"training.batch_size={TRIED_ROWS}"]) for size in sizes
    }
    print(f"stock, seconds for {TRIED_ROWS} rows by per-device batch (None: out of memory): {tried}", flush=True)
    return min((size for size in sizes if tried[size] is not None), key=tried.get)


def apart(what: str, data: Path, overrides: list[str]) -> float | None:
    """`seconds` of one step, or the bytes of `memory` it takes at most above what it found, in a process of its own.

    None if the process is killed, as one that takes all memory is.
    """
    command = [sys.executable, "-m", "experiments.benchmarks.training", "--apart", what, str(data), *overrides]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if found.returncode == -signal.SIGKILL:
        return None
    found.check_returncode()
    return float(found.stdout.strip().splitlines()[-1])


def _seconds(step: Step) -> float:
    return step.take_in_turn()[0]


def _memory(step: Step) -> int:
    before, most = memory_of(step)
    return most - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algos", default=",".join(ALGOS))
    parser.add_argument("--mode", default="lora")
    parser.add_argument("--batching", default="tree", help="tree or random")
    parser.add_argument("--dialogues", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="peak memory too, in processes of their own")
    parser.add_argument("--json", action="store_true", help="the last line is JSON")
    parser.add_argument("--stock-batches", default="1,2,4,8", help="per-device batches of stock TRL to try; KTO takes no 1")
    parser.add_argument("--apart", nargs=2, metavar=("WHAT", "DATA"), help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as training.batch_size=32")
    options = parser.parse_args()
    with freed_memory_kept():
        _compare(options)


def _compare(options: argparse.Namespace) -> None:
    if options.apart:
        what, data = options.apart
        with tempfile.TemporaryDirectory() as out:
            print({"seconds": _seconds, "memory": _memory}[what](Step(Path(data), Path(out), options.overrides)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "rows", Path(folder) / "out"
        write_rows(data, options.dialogues)
        for algo in options.algos.split(","):
            common = [
                f"algo={algo}",
                f"mode={options.mode}",
                f"training.batching={options.batching}",
                "backbone=smollm2",
                "hardware=cpu",
                "training.dtype=float32",
                "training.max_prompt_length=4096",
                # the reference model reads the step's rows and no others
                "training.max_steps=1",
                *options.overrides,
            ]
            sizes = [size for size in map(int, options.stock_batches.split(",")) if algo != "kto" or size > 1]
            per_device = fastest_stock(data, common, sizes)
            found = {"stock_per_device_batch": per_device}
            # In processes of their own, and before this one holds two models: a large step leaves room for no other.
            if options.memory:
                shared, stock = (apart("memory", data, [*common, *more]) for more in ([], stock_overrides(per_device)))
                found |= {"gigabytes": round(shared / 1e9, 2), "stock_gigabytes": round(stock / 1e9, 2)}
                found["memory_ratio"] = round(shared / stock, 3)
            found |= measure(data, out, common, per_device, options.repeats)
            give_back_memory()
            results[algo] = found
            print(algo, found, flush=True)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
