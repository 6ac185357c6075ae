"""Small trainings for tests: configurations of tiny random models."""

import json
import os
import subprocess
import sys

from omegaconf import OmegaConf
from project import ROOT, composed

ALGOS = ("sft", "dpo", "ipo", "kto", "simpo", "orpo")
ARCHITECTURES = ("tiny_llama", "tiny_qwen", "tiny_gemma")


def config(shared, *overrides):
    """Returns the configuration of a training of two steps on a tiny model; shared files go below the folder `shared`."""
    fixed = ["backbone=tiny_llama", f"shared_dir={shared}", "hardware=cpu", "training.dtype=float32", "training.batch_size=4"]
    fixed += ["training.learning_rate=1e-3", "training.warmup_ratio=0", "training.max_steps=2"]
    return composed(*fixed, *overrides)


def trainer_of(cfg, data, out):
    """Returns (trainer, its chat format, its rows) just before the training, with all rows in one batch."""
    from cso_lab.training.arguments import batches, trainer_arguments
    from cso_lab.training.backbone import load_tokenizer
    from cso_lab.training.chat_format import ChatFormat
    from cso_lab.training.rows import fit_rows, read_rows
    from cso_lab.training.trainer import build_trainer

    chat = ChatFormat(load_tokenizer(cfg))
    limits = (cfg.training.max_prompt_length, cfg.training.max_target_length)
    rows, counts = fit_rows(read_rows(data, cfg.algorithm.rows), chat, *limits, cfg.training.max_rows, 0)
    return build_trainer(cfg, trainer_arguments(cfg, *batches(cfg), out), rows, chat.tokenizer, out, None), chat, rows, counts


_WORKER = """
import os, sys
from pathlib import Path
from omegaconf import OmegaConf
from cso_lab.core.files import write_json
from cso_lab.training.train import train_here

folder, data = map(Path, sys.argv[1:])
for file in sorted(folder.glob("*.yaml")):
    out = folder / file.stem
    summary = train_here(OmegaConf.load(file), data, out, None)
    write_json(out / f"summary-{os.environ['RANK']}.json", summary)
"""


def train_in_two_processes(cfgs, data, folder):
    """Trains {name: configuration}, one after the other in the same two processes, which take longer to start than to train.

    Each training's files are left in `folder`/name. Returns {name: (summary of process 0, summary of process 1)}.
    """
    for name, cfg in cfgs.items():
        OmegaConf.save(cfg, folder / f"{name}.yaml", resolve=True)
    (folder / "worker.py").write_text(_WORKER, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=localhost", "--nproc-per-node=2"]
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"  # ninja, with which DeepSpeed builds, is there
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PATH": path}
    subprocess.run([*command, str(folder / "worker.py"), str(folder), str(data)], env=environment, check=True, timeout=900)
    return {
        name: tuple(json.loads((folder / name / f"summary-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1))
        for name in cfgs
    }


def fill_adapter(model):
    """Gives a new adapter random weights: it begins as nothing, and half of its gradients with it."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
