"""Training with shared prefixes against TRL as it is: one optimizer step's forward and backward pass on the same ESC-Pro-shaped rows.

    python -m experiments.benchmarks.training [--algos dpo,sft] [--mode lora] [--batching tree|random] [--memory] [--json] [Hydra overrides]

Dialogues have 7 supporter turns with 2.6 dispreferred siblings each, utterances 17 to 29 words, prompts the real system prompt.
Stock TRL runs at its fastest per-device batch of 1, 2, 4 and 8 (`--stock-batches`), found on 8 rows in processes of their own: 8 pairs in
float32 do not fit into 24 GB. Both sides then alternate over the whole step, and medians are compared;
loss and gradients are compared on the same batches.
"""

import argparse
import ctypes
import gc
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir

from cso_lab.core.files import write_jsonl
from cso_lab.core.records import SEEKER, SUPPORTER, Turn, prompt_messages, supporter_message
from cso_lab.core.strategies import EXTES
from cso_lab.corpora import load
from cso_lab.pipeline.cell_names import register_resolvers
from cso_lab.preferences.rows import kto_rows
from cso_lab.training.allocator import freed_memory_kept

ALGOS = ("sft", "dpo", "ipo", "kto", "simpo", "orpo")
# Rows on which stock's fastest per-device batch is found.
TRIED_ROWS = 8
TURNS = 7


def escpro_rows(dialogues: int, seed: int, words: list[str]) -> dict[str, list[dict]]:
    """Pairs, SFT and KTO rows of so many made-up dialogues; 13 dispreferred responses on every 5 turns."""
    chance = random.Random(seed)

    def utterance() -> str:
        return " ".join(chance.choices(words, k=chance.randint(17, 29))).capitalize() + "."

    pairs, sft = [], []
    for number in range(dialogues):
        history = [Turn(SEEKER, utterance())]
        for turn in range(TURNS):
            chosen, *others = chance.sample(EXTES.names, 3 if (turn + number) % 5 < 2 else 4)
            reply = Turn(SUPPORTER, utterance(), chosen)
            row = {"prompt": prompt_messages(history, EXTES), "dialogue": str(number), "chosen_strategy": chosen}
            sft.append({"prompt": row["prompt"], "completion": [supporter_message(reply)], "dialogue": str(number)})
            for other in others:
                rejected = supporter_message(Turn(SUPPORTER, utterance(), other))
                pairs.append({**row, "chosen": [supporter_message(reply)], "rejected": [rejected], "rejected_strategy": other})
            history += [reply, Turn(SEEKER, utterance())]
    return {"pairs": pairs, "sft": sft, "kto": kto_rows(pairs)}


def words() -> list[str]:
    """Every word of the sample corpus, as often as it stands there."""
    with config() as cfg:
        return [
            word.strip(".,?!").lower()
            for dialogue in load(cfg.data).dialogues
            for turn in dialogue.turns
            for word in turn.text.split()
        ]


@contextmanager
def config(*overrides: str):
    """Within it, the configuration `python run.py` would compose from these overrides."""
    register_resolvers()
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
        yield compose("config", overrides=list(overrides))


class Step:
    """One trainer, and a batch of rows to take a step on."""

    def __init__(self, data: Path, out: Path, overrides: list[str]):
        from cso_lab.training.arguments import batches, trainer_arguments
        from cso_lab.training.backbone import load_tokenizer, quiet_libraries
        from cso_lab.training.chat_format import ChatFormat
        from cso_lab.training.rows import fit_rows, read_rows
        from cso_lab.training.trainer import build_trainer

        quiet_libraries()
        with config(*overrides) as cfg:
            chat = ChatFormat(load_tokenizer(cfg))
            training = cfg.training
            rows, _ = fit_rows(
                read_rows(data, cfg.algorithm.rows),
                chat,
                training.max_prompt_length,
                training.max_target_length,
                None,
                training.seed,
            )
            arguments = trainer_arguments(cfg, *batches(cfg), out)
            self.trainer = build_trainer(cfg, arguments, rows, chat.tokenizer, out, None)
        self.model = self.trainer.accelerator.prepare(self.trainer.model)
        self.batches, self.rows = self._first_batches(training.batch_size)
        self.tokens = 0
        backbone = self.trainer.model.get_base_model() if hasattr(self.trainer.model, "get_base_model") else self.trainer.model
        backbone.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, args, kwargs):
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        self.tokens += ids.numel()

    def _first_batches(self, batch_size: int):
        batches, rows = [], 0
        for batch in self.trainer.get_train_dataloader():
            batches.append(batch)
            rows += self.trainer.args.per_device_train_batch_size
            if rows >= batch_size:
                return batches, rows
        raise SystemExit(f"the benchmark's rows do not fill one batch of {batch_size}")

    def take(self, batches: int | None = None) -> tuple[float, float]:
        """Forward and backward over all batches of the step, or its first few: (seconds, mean loss)."""
        self.model.train()
        self.model.zero_grad()
        self.tokens, total = 0, 0.0
        batches = self.batches[:batches]
        began = time.perf_counter()
        for batch in batches:
            batch = self.trainer._prepare_inputs(dict(batch))
            loss = self.trainer.compute_loss(self.model, batch) / len(batches)
            loss.backward()
            total += loss.item()
        return time.perf_counter() - began, total

    def take_in_turn(self) -> tuple[float, float]:
        """`take`, once the other side's memory is given back and a batch has touched its own: a training's first step alone finds none."""
        give_back_memory()
        self.take(1)
        return self.take()

    def gradient(self):
        import torch

        found = [weight.grad.flatten() for weight in self.model.parameters() if weight.grad is not None]
        return torch.cat(found)


def measure(data: Path, out: Path, common: list[str], per_device: int, repeats: int) -> dict:
    """Speedup over stock at this per-device batch, token ratio and differences of one algorithm."""
    stock = Step(data, out, [*common, *stock_overrides(per_device)])
    shared = Step(data, out, common)
    _nudge(shared), _nudge(stock)
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


def give_back_memory() -> None:
    """Freed memory, which a training keeps, to the system: two sides would not fit beside each other."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def fastest_stock(data: Path, common: list[str], sizes: list[int]) -> int:
    """The fastest per-device batch of TRL as it is; one that does not fit into memory is none."""
    if len(sizes) == 1:
        return sizes[0]
    tried = {
        size: apart("seconds", data, [*common, *stock_overrides(size), f"training.batch_size={TRIED_ROWS}"]) for size in sizes
    }
    print(f"stock, seconds for {TRIED_ROWS} rows by per-device batch (None: out of memory): {tried}", flush=True)
    return min((size for size in sizes if tried[size] is not None), key=tried.get)


def stock_overrides(per_device: int) -> list[str]:
    """What makes a run TRL as it is, so many rows at once."""
    return ["training.share_prefixes=false", f"training.per_device_batch_size={per_device}"]


def _nudge(step: Step) -> None:
    """Set the adapter's zero half to something, or many of its gradients would be 0 and nothing would be compared."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in step.model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.01)


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
    """Linux only: its peak can be set back, which loading the model and reading the reference have raised."""
    give_back_memory()
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    step.take()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    """Bytes of this process in memory, now (VmRSS) or at most (VmHWM)."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


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
            print({"seconds": _seconds, "cache_replies": _memory}[what](Step(Path(data), Path(out), options.overrides)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "rows", Path(folder) / "out"
        for name, rows in escpro_rows(options.dialogues, 0, words()).items():
            write_jsonl(data / f"{name}.jsonl", rows)
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
                shared, stock = (apart("cache_replies", data, [*common, *more]) for more in ([], stock_overrides(per_device)))
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
