"""Resolves the setting "auto" of device and number types on this machine. Imports torch only if the system's files do not decide it."""

import sys
from pathlib import Path

from omegaconf import DictConfig

# Device files of NVIDIA's drivers, of AMD's, and of both under WSL: without any of them PyTorch finds no GPU on Linux.
_GPU_FILES = ("nvidia*", "kfd", "dxg")
# A processor without any of these instructions (Linux's names) multiplies bfloat16 no faster than float32.
_BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}


def device(cfg: DictConfig) -> str:
    """Returns "cuda" or "cpu" for `cfg.hardware.device`; see `backbone.device`, which this agrees with."""
    if cfg.hardware.device == "cpu" or (cfg.hardware.device == "auto" and _surely_no_gpu()):
        return "cpu"
    from cso_lab.training import backbone

    return backbone.device(cfg)


def dtype(name: str, device: str) -> str:
    """Returns "bfloat16" or "float32" for a dtype setting on a device; see `backbone.resolve_dtype`, which this agrees with."""
    if name in ("bfloat16", "float32"):
        return name
    if name == "auto" and device == "cpu" and (flags := processor_flags()) and not flags & _BFLOAT16_FLAGS:
        return "float32"
    from cso_lab.training import backbone

    return str(backbone.resolve_dtype(name, device)).removeprefix("torch.")


def matrix_product_speed() -> tuple[str, float]:
    """Returns (name of the first GPU, operations a second that products of bfloat16 matrices reach on it), measured for a moment."""
    import time

    import torch

    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    products, operations = 20, 2 * 8192**3
    for number in range(products + 3):
        if number == 3:  # the first ones choose kernels
            torch.cuda.synchronize()
            began = time.perf_counter()
        matrix @ matrix
    torch.cuda.synchronize()
    return torch.cuda.get_device_name(0), products * operations / (time.perf_counter() - began)


def resolve_auto(cfg: DictConfig) -> DictConfig:
    """Returns a copy of `cfg` in which the device and all number types have the values that "auto" means on this machine."""
    cfg = cfg.copy()
    resolved = cfg.hardware.device = device(cfg)
    cfg.generation.dtype = dtype(cfg.generation.dtype, resolved)
    cfg.training.dtype = dtype(cfg.training.dtype, resolved)
    start = cfg.algorithm.get("start")
    while start is not None:
        start.training.dtype = dtype(start.training.dtype, resolved)
        start = start.get("start")
    return cfg


def processor_flags() -> set[str]:
    """Returns the processor's instruction sets by Linux's names; an empty set if they cannot be read."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return set()
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def _surely_no_gpu() -> bool:
    return sys.platform == "linux" and not any(any(Path("/dev").glob(pattern)) for pattern in _GPU_FILES)
