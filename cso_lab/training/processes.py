"""Training in several processes: the run starts them with torchrun, for the training alone, and waits for their result.

`agent` is the entry point of torchrun on one node, `worker` that of one process of the training. The run, the agents and the workers
exchange files (job, configuration, result, failures) in a folder below the cell's own.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, write_json
from cso_lab.training.machine import resolve_auto

# The folder, below the cell's own, through which the run and the processes of its training exchange files.
WORKERS = "workers"
JOB, CONFIG, RESULT, FAILED = "job.json", "config.yaml", "result.json", "failed-{}.json"


@dataclass(frozen=True)
class Failure:
    """Why a process ended.

    Of several failures the one of the lowest `order` is reported: 0 an error the user can put right, 1 a signal, 2 any other error (it
    may only be that another process is gone), 3 an exit code. `time` is when it was written, in seconds since the epoch.
    """

    reason: str
    order: int
    time: float = 0.0

    def write(self, folder: Path, name: str) -> None:
        """Writes the failure, with the time of now, to `folder`/failed-`name`.json."""
        write_json(folder / FAILED.format(name), asdict(self) | {"time": time.time()})


def in_processes(cfg: DictConfig) -> bool:
    """Returns whether the training runs in processes of its own: there are several of them, or DeepSpeed is used."""
    return cfg.hardware.processes > 1 or cfg.hardware.deepspeed is not None


def read_job(folder: Path) -> tuple[DictConfig, Path, Path, Path | None]:
    """Returns the arguments (cfg, data, out, start) of the training that `train_in_processes` wrote to `folder`."""
    job = read_json(folder / JOB)
    start = None if job["start"] is None else Path(job["start"])
    return OmegaConf.load(folder / CONFIG), Path(job["data"]), Path(job["out"]), start


def end_with_parent() -> None:
    """Kills this process and those it started as soon as its standard input is closed.

    Standard input is a pipe from the run, to which nothing is written. The system closes it however the run ends, also by kill -9.
    """

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def train_in_processes(cfg: DictConfig, data: Path, out: Path, start: Path | None) -> dict:
    """Trains in `cfg.hardware.processes` processes; arguments and result are those of `train.train`.

    No process outlives this call, however it ends; an interrupted or failed training keeps its checkpoints and can be resumed.
    Raises UserError, with the process that failed first and its reason, if the training failed.
    """
    from cso_lab.training.backbone import prepare_backbone

    out = Path(out).resolve()
    folder = out / WORKERS
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    prepare_backbone(cfg)
    OmegaConf.save(resolve_auto(cfg), folder / CONFIG, resolve=True)
    paths = {"data": str(Path(data).resolve()), "out": str(out), "start": str(Path(start).resolve()) if start else None}
    write_json(folder / JOB, paths)

    code = _run([*cfg.hardware.launcher, *_torchrun(cfg.hardware), str(folder)], _environment(cfg))
    if code or not (folder / RESULT).exists():
        raise UserError(f"training stopped: {_reason(folder, code)}; the same command goes on from its last checkpoint")
    summary = read_json(folder / RESULT)
    shutil.rmtree(folder)
    return summary


def _torchrun(hardware: DictConfig) -> list[str]:
    """Returns the command that starts one node's processes; the folder is to be appended."""
    processes_per_node = hardware.processes // hardware.nodes
    # A single node takes a free port of the loopback device, which other machines cannot reach.
    rendezvous = ["--standalone", "--local-addr=localhost"]
    if hardware.nodes > 1:
        rendezvous = [f"--nnodes={hardware.nodes}", "--rdzv-backend=c10d", f"--rdzv-id={uuid.uuid4().hex}"]
        rendezvous.append(f"--rdzv-endpoint={socket.gethostname()}:{_free_port()}")
    worker = ["--module", "cso_lab.training.worker"]
    return [sys.executable, "-m", "cso_lab.training.agent", *rendezvous, f"--nproc-per-node={processes_per_node}", *worker]


def _environment(cfg: DictConfig) -> dict[str, str]:
    """Returns the environment variables of the processes; on CPUs the threads are divided among the processes of a node."""
    # DeepSpeed builds an extension with ninja, which is installed beside Python but may not be on the path.
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
    """Returns the exit code of a command, all of whose processes end with this call or this process (see `end_with_parent`)."""
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
    """Returns why the processes ended: the failure of the lowest order, the earliest of those."""
    failures = [Failure(**read_json(file)) for file in folder.glob(FAILED.format("*"))]
    if not failures:
        return f"the processes ended with exit code {code}"
    first = min(failures, key=lambda failure: (failure.order, failure.time))
    return first.reason if first.order == 0 else f"{first.reason} (see {folder})"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]
