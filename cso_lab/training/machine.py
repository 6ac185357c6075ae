"""What "auto" comes to on this machine. It imports torch only where nothing else can tell."""

import sys
from pathlib import Path

# Device files of NVIDIA's drivers, of AMD's, and of both under WSL: without any of them PyTorch finds no GPU on Linux.
_GPU_FILES = ("nvidia*", "kfd", "dxg")
# Instructions without which no processor multiplies bfloat16 faster than float32, as Linux calls them.
_BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}


def device(cfg) -> str:
    """ "cuda" or "cpu", as `cfg.hardware.device` asks, see `backbone.device`."""
    if cfg.hardware.device == "cpu" or (cfg.hardware.device == "auto" and _surely_no_gpu()):
        return "cpu"
    from cso_lab.training import backbone

    return backbone.device(cfg)


def dtype(name: str, where: str) -> str:
    """The name of the number type that `name` comes to on a device, see `backbone.resolve_dtype`."""
    if name in ("bfloat16", "float32"):
        return name
    if name == "auto" and where == "cpu" and (flags := processor_flags()) and not flags & _BFLOAT16_FLAGS:
        return "float32"
    from cso_lab.training import backbone

    return str(backbone.resolve_dtype(name, where)).removeprefix("torch.")


def settled(cfg):
    """A copy of `cfg` in which device and number types are what they come to here."""
    cfg = cfg.copy()
    where = cfg.hardware.device = device(cfg)
    cfg.generation.dtype = dtype(cfg.generation.dtype, where)
    cfg.training.dtype = dtype(cfg.training.dtype, where)
    start = cfg.algorithm.get("start")
    while start is not None:
        start.training.dtype = dtype(start.training.dtype, where)
        start = start.get("start")
    return cfg


def processor_flags() -> set[str]:
    """The processor's instruction sets as Linux names them; empty where they cannot be read."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return set()
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def _surely_no_gpu() -> bool:
    return sys.platform == "linux" and not any(any(Path("/dev").glob(pattern)) for pattern in _GPU_FILES)
