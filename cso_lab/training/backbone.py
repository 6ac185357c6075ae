"""The backbone: where its weights come from, its tokenizer, the device and number type it runs on, its checkpoints."""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.core.hashing import digest
from cso_lab.core.installed import installed_version
from cso_lab.core.manifest import MANIFEST, damage

# A checkpoint that was trained on top of another one keeps that one inside itself, so that a run folder can be moved.
START = "start"
_ADAPTER_FILE = "adapter_config.json"
# Raise it when converted or random weights come out otherwise than before.
_MADE = 1


def prepare_backbone(cfg) -> str:
    """Hub id or folder of `cfg.backbone`'s weights, made first where they are not ready to load.

    A GGUF file inside an installed package is converted, and a random model built, once into `cfg.shared_dir`/backbones;
    processes that ask at the same time wait for the first.
    """
    backbone = cfg.backbone
    if backbone.path is not None:
        return str(backbone.path)
    folder = Path(cfg.shared_dir) / "backbones" / f"{backbone.name}-{digest(_made_from(backbone))}"
    if backbone.get("gguf") is not None:
        return str(_made_once(folder, lambda target: _convert_gguf(backbone.gguf.package, backbone.gguf.file, target)))
    if backbone.get("random") is not None:
        from cso_lab.training.tiny_models import save_tiny_model

        random = backbone.random
        return str(_made_once(folder, lambda target: save_tiny_model(random.architecture, target, random.seed)))
    raise UserError(f"backbone {backbone.name!r} says nothing of its weights: give backbone.path=HUB_ID_OR_FOLDER")


def _made_from(backbone) -> list:
    """What the weights of a backbone that are made here depend on; they are made again where it is another."""
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(backbone, resolve=True)
    return [_MADE, values.get("gguf"), values.get("random"), packaged(backbone)]


def packaged(backbone) -> str | None:
    """Name and version of the installed package that holds the backbone's weights; None where none does."""
    return None if backbone.get("gguf") is None else installed_version(backbone.gguf.package)


def load_tokenizer(cfg):
    """The backbone's tokenizer, left-padding, whose EOS is the token its chat template ends a turn with.

    Some models (Gemma) end turns with another token than their tokenizer's EOS; with both, a trainer would append a second
    end to every response. Raises UserError if the chat template cannot be trained and measured with (see `check_chat_template`).
    """
    from transformers import AutoTokenizer

    from cso_lab.training.chat_format import ChatFormat, check_chat_template

    path = prepare_backbone(cfg)
    tokenizer = _from_pretrained(AutoTokenizer, path)
    if tokenizer.chat_template is None:
        raise UserError(f"the tokenizer of {path} has no chat template: choose an instruction-tuned model as backbone.path")
    tokenizer.padding_side = "left"
    tokenizer.eos_token = ChatFormat(tokenizer).turn_end
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    check_chat_template(tokenizer)
    return tokenizer


def load_model(cfg, checkpoint: Path | None = None, *, dtype: str | None = None):
    """The backbone in evaluation mode on `device(cfg)`, or what a checkpoint folder of a training run holds.

    `checkpoint` is a full model or an adapter; an adapter is merged into the weights it was trained on. `dtype` is a name
    (default: `cfg.training.dtype`); the weights are loaded in that type.
    """
    where = device(cfg)
    number_type = resolve_dtype(cfg.training.dtype if dtype is None else dtype, where)
    return load_weights(cfg, checkpoint, number_type).to(where).eval()


def load_weights(cfg, checkpoint: Path | None, number_type):
    """The model of `load_model` on the CPU, its weights of a torch dtype."""
    from transformers import AutoModelForCausalLM

    options = {"dtype": number_type, "attn_implementation": cfg.backbone.attn_implementation}
    if checkpoint is None:
        return _from_pretrained(AutoModelForCausalLM, prepare_backbone(cfg), **options)
    checkpoint = Path(checkpoint)
    check_whole(checkpoint)
    if not is_adapter(checkpoint):
        return _from_pretrained(AutoModelForCausalLM, str(checkpoint), **options)
    from peft import PeftModel

    start = checkpoint / START
    base = load_weights(cfg, start if start.exists() else None, number_type)
    with _loading(checkpoint, "if its files are damaged, delete that folder, and the run's own command trains it again"):
        return PeftModel.from_pretrained(base, str(checkpoint)).merge_and_unload()


def check_whole(checkpoint: Path) -> None:
    """Raises UserError if a finished checkpoint is not as its training left it. Without a manifest nothing is known of that."""
    if (checkpoint / MANIFEST).exists() and (found := damage(checkpoint)):
        raise UserError(f"{checkpoint} is damaged: {found}; delete that folder, and the run's own command trains it again")


def is_adapter(checkpoint: Path) -> bool:
    """Whether a checkpoint folder holds an adapter; a UserError when it holds neither that nor a model."""
    if (checkpoint / _ADAPTER_FILE).exists():
        return True
    if (checkpoint / "config.json").exists():
        return False
    raise UserError(f"no checkpoint in {checkpoint}: run the train stage of that run first")


def device(cfg) -> str:
    """ "cuda" or "cpu", as `cfg.hardware.device` asks."""
    import torch

    wanted = cfg.hardware.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("hardware.device=cuda, but no GPU is visible here: use hardware=auto or hardware=cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def resolve_dtype(name: str, where: str):
    """The torch dtype called `name` on a device; "auto" is bfloat16 where the hardware multiplies it, else float32."""
    import torch

    if name != "auto":
        return getattr(torch, name)
    faster = torch.cuda.is_bf16_supported() if where == "cuda" else _cpu_multiplies_bfloat16()
    return torch.bfloat16 if faster else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    """Asked of the processor, not of a clock: what is busy beside a run must not change its numbers.

    AMX multiplies bfloat16 at about twice the speed of float32. AVX-512's instruction for it (avx512_bf16) came to 2.4 times the speed of
    float32 on an EPYC, but to half of it on a Xeon without AMX; without either bfloat16 is some ten times slower.
    """
    import torch

    found = torch.cpu.get_capabilities()
    return bool(found.get("amx_bf16") or (found.get("avx512_bf16") and "AMD" in found.get("cpu_name", "")))


def quiet_libraries() -> None:
    """Errors only, and no progress bars, from the libraries that load models and rows: the stages show their own."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    import datasets
    import torch
    import transformers

    if not torch.cuda.is_available():
        # Or DeepSpeed, imported along the way, warns that it looked for a GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # Deprecations among the libraries themselves; nothing a user could act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.|trl\.")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def _from_pretrained(auto_class, path: str, **options):
    """`auto_class.from_pretrained(path)`; one line where the model cannot be had."""
    advice = "give a model you have with backbone.path=FOLDER, or make it reachable (network, and a login for gated models)"
    with _loading(path, advice):
        return auto_class.from_pretrained(path, **options)


@contextmanager
def _loading(path: str | Path, advice: str) -> Iterator[None]:
    """Raises UserError, in one line, where what lies at `path` cannot be loaded; short memory stays the error that it is."""
    quiet_libraries()
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the libraries have errors of their own for files they cannot read, down to a bare Exception
        reason = " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())
        raise UserError(f"cannot load '{path}' ({reason}): {advice}") from error


def _made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by `make` unless it is there; whole or not at all, also when two processes ask at once."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                partial = folder.with_name(f".{folder.name}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                make(partial)
                os.replace(partial, folder)
    return folder


def _convert_gguf(package: str, file: str, folder: Path) -> None:
    """The GGUF file of an installed package as a float32 safetensors model with its tokenizer. Imports nothing of the package."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = find_spec(package)
    if spec is None:
        raise UserError(f"the package {package!r} with the embedded model is not installed: run `make setup`")
    source = spec.submodule_search_locations[0]
    tokenizer = _from_pretrained(AutoTokenizer, source, gguf_file=file)
    model = _from_pretrained(AutoModelForCausalLM, source, gguf_file=file, dtype=torch.float32)
    # The weights are plain numbers now; with these marks left, the model could neither be saved nor trained.
    if hasattr(model, "hf_quantizer"):
        del model.hf_quantizer
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
