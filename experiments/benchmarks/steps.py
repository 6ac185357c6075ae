"""Rows of ESC-Pro's shape, and one optimizer step on them, as the benchmarks of training measure it."""

import ctypes
import gc
import random
import re
import sys
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

ALGOS = ("sft", "dpo", "ipo", "kto", "simpo", "orpo")
TURNS = 7
# What the optimizer's part of a step is called in a profile.
OPTIMIZER = "benchmark: optimizer"


def write_rows(folder: Path, dialogues: int) -> None:
    """Writes the rows of so many made-up dialogues, as the dataset stage does."""
    for name, rows in escpro_rows(dialogues, 0, words()).items():
        write_jsonl(folder / f"{name}.jsonl", rows)


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

    def take(self, batches: int | None = None, update: bool = False) -> tuple[float, float]:
        """Forward and backward over all batches of the step, or its first few: (seconds, mean loss). `update`: the optimizer too."""
        from peft.helpers import disable_input_dtype_casting

        self.model.train()
        self.model.zero_grad()
        self.tokens, total = 0, 0.0
        batches = self.batches[:batches]
        began = time.perf_counter()
        with disable_input_dtype_casting(self.model, active=self.trainer.args.bf16):
            for batch in batches:
                batch = self.trainer._prepare_inputs(dict(batch))
                loss = self.trainer.compute_loss(self.model, batch) / len(batches)
                loss.backward()
                total += loss.item()
        if update:
            self._update()
        synchronize()
        return time.perf_counter() - began, total

    def _update(self):
        """What a training does with the gradients, at a learning rate of 0, so that every step is the same."""
        from torch.profiler import record_function

        if self.trainer.optimizer is None:
            self.trainer.create_optimizer()
            for group in self.trainer.optimizer.param_groups:
                group["lr"] = 0.0
        with record_function(OPTIMIZER):
            self.trainer.accelerator.clip_grad_norm_(self.model.parameters(), self.trainer.args.max_grad_norm)
            self.trainer.optimizer.step()

    def take_in_turn(self) -> tuple[float, float]:
        """`take`, once the other side's memory is given back and a batch has touched its own: a training's first step alone finds none."""
        give_back_memory()
        self.take(1)
        return self.take()

    def gradient(self):
        import torch

        found = [weight.grad.flatten() for weight in self.model.parameters() if weight.grad is not None]
        return torch.cat(found)


def synchronize() -> None:
    """Waits until a GPU has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def stock_overrides(per_device: int) -> list[str]:
    """What makes a run TRL as it is, so many rows at once."""
    return ["training.share_prefixes=false", f"training.per_device_batch_size={per_device}"]


def nudge(step: Step) -> None:
    """Set the adapter's zero half to something, or many of its gradients would be 0 and nothing would be compared."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in step.model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.01)


def give_back_memory() -> None:
    """Freed memory, which a training keeps, to the system: two sides would not fit beside each other."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def memory_of(step: Step, update: bool = False) -> tuple[int, int]:
    """Takes the step: bytes of memory before it and at most during it, of the GPU if the model is there, else of this process.

    Of a process on Linux only: its peak can be set back, which loading the model and reading the reference have raised.
    """
    import torch

    give_back_memory()
    if step.model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step.take(update=update)
        return before, torch.cuda.max_memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    step.take(update=update)
    return before, _resident("VmHWM")


def _resident(field: str) -> int:
    """Bytes of this process in memory, now (VmRSS) or at most (VmHWM)."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
