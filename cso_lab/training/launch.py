"""Training in several processes: the run starts them with torchrun, for the training alone, and waits for what they leave.

`agent` is torchrun on one node, `worker` one process of the training. They and the run meet in a folder below the cell's own.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, write_json
from cso_lab.training.machine import settled

# The folder in which the processes of a training and the run that waits for them meet.
WORKERS = "workers"
JOB, CONFIG, RESULT, FAILED = "job.json", "config.yaml", "result.json", "failed-{}.json"


@dataclass(frozen=True)
class Failure:
    """Why a process ended. Of several, that of the lowest `order` says most: 0 what the user can put right, 1 a signal, 2 an error (also
    that another process is gone), 3 an exit code."""

    reason: str
    order: int
    time: float = 0.0

    def leave(self, folder: Path, name: str) -> None:
        write_json(folder / FAILED.format(name), asdict(self) | {"time": time.time()})


def in_processes(cfg) -> bool:
    """Whether a training is one of processes of its own: there are several, or DeepSpeed wants it so."""
    return cfg.hardware.processes > 1 or cfg.hardware.deepspeed is not None


def read_job(folder: Path) -> tuple:
    """(cfg, data, out, start) as `train_in_processes` left them."""
    from omegaconf import OmegaConf

    job = read_json(folder / JOB)
    start = None if job["start"] is None else Path(job["start"])
    return OmegaConf.load(folder / CONFIG), Path(job["data"]), Path(job["out"]), start


def train_in_processes(cfg, data: Path, out: Path, start: Path | None) -> dict:
    """What `train` does, in `cfg.hardware.processes` processes; a UserError says which of them failed first, and why.

    However it ends, no process is left behind; an interrupted or failed training leaves the checkpoints it goes on from.
    """
    from omegaconf import OmegaConf

    from cso_lab.training.backbone import prepare_backbone

    out = Path(out).resolve()
    folder = out / WORKERS
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    prepare_backbone(cfg)
    OmegaConf.save(settled(cfg), folder / CONFIG, resolve=True)
    where = {"data": str(Path(data).resolve()), "out": str(out), "start": str(Path(start).resolve()) if start else None}
    write_json(folder / JOB, where)

    code = _run([*cfg.hardware.launcher, *_torchrun(cfg.hardware), str(folder)], _environment(cfg))
    if code or not (folder / RESULT).exists():
        raise UserError(f"training stopped: {_reason(folder, code)}; the same command goes on from its last checkpoint")
    summary = read_json(folder / RESULT)
    shutil.rmtree(folder)
    return summary


def _torchrun(hardware) -> list[str]:
    """The command that starts one node's processes, but for the folder."""
    share = hardware.processes // hardware.nodes
    # One node needs nobody to be found by: a free port of the loopback device.
    meet = ["--standalone", "--local-addr=localhost"]
    if hardware.nodes > 1:
        meet = [f"--nnodes={hardware.nodes}", "--rdzv-backend=c10d", f"--rdzv-id={uuid.uuid4().hex}"]
        meet.append(f"--rdzv-endpoint={socket.gethostname()}:{_free_port()}")
    worker = ["--module", "cso_lab.training.worker"]
    return [sys.executable, "-m", "cso_lab.training.agent", *meet, f"--nproc-per-node={share}", *worker]


def _environment(cfg) -> dict[str, str]:
    # DeepSpeed builds an extension with ninja, which lies beside Python also where that is not on the path.
    environment = dict(os.environ) | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    from cso_lab.training.backbone import device

    if device(cfg) == "cpu":
        environment["DS_ACCELERATOR"] = "cpu"
        threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0))
        environment["OMP_NUM_THREADS"] = str(max(1, threads * cfg.hardware.nodes // cfg.hardware.processes))
    return environment


def _run(command: list[str], environment: dict[str, str]) -> int:
    """The exit code of a command whose processes end when this one does, and leave nothing behind (see `agent.end_with_parent`)."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
    try:
        return process.wait()
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _reason(folder: Path, code: int) -> str:
    failures = [Failure(**read_json(file)) for file in folder.glob(FAILED.format("*"))]
    if not failures:
        return f"the processes ended with exit code {code}"
    first = min(failures, key=lambda failure: (failure.order, failure.time))
    return first.reason if first.order == 0 else f"{first.reason} (see {folder})"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]
