"""Loads the backbone: its weights and tokenizer, the device and number type it runs on, its checkpoints."""

import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from cso_lab.core.errors import UserError
from cso_lab.core.hashing import digest
from cso_lab.core.installed import installed_version
from cso_lab.core.manifest import MANIFEST, damage
from cso_lab.training.quantization import dequantized, is_quantized, keep_unpacked, loading_options, set_dtypes

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from cso_lab.training.chat_format import ChatFormat

# Subfolder of an adapter checkpoint that holds a copy of the checkpoint it was trained on, so that a run folder can be moved.
START = "start"
_ADAPTER_FILE = "adapter_config.json"
# Increase when converted weights change.
_WEIGHTS_VERSION = 1


def prepare_backbone(cfg: DictConfig) -> str:
    """Returns the hub id or the folder of `cfg.backbone`'s weights.

    A GGUF file inside an installed package is converted, and a random model is built, once into `cfg.shared_dir`/backbones;
    other processes wait until that is done. Raises UserError if the backbone names no weights or its package is not installed.
    """
    backbone = cfg.backbone
    if backbone.path is not None:
        return str(backbone.path)
    folder = Path(cfg.shared_dir) / "backbones" / f"{backbone.name}-{digest(_weights_key(backbone))}"
    if backbone.get("gguf") is not None:
        return str(_create_once(folder, lambda target: _convert_gguf(backbone.gguf.package, backbone.gguf.file, target)))
    if backbone.get("random") is not None:
        from cso_lab.training.tiny_models import save_tiny_model

        random = backbone.random
        return str(_create_once(folder, lambda target: save_tiny_model(random.architecture, target, random.seed)))
    raise UserError(f"backbone {backbone.name!r} says nothing of its weights: give backbone.path=HUB_ID_OR_FOLDER")


def _weights_key(backbone: DictConfig) -> list:
    """Returns what converted or random weights depend on; their folder is named by a hash of it."""
    values = OmegaConf.to_container(backbone, resolve=True)
    return [_WEIGHTS_VERSION, values.get("gguf"), values.get("random"), weights_version(backbone)]


def weights_version(backbone: DictConfig) -> str | None:
    """Returns the version of weights that do not lie at `backbone.path`, None if they do.

    That of converted weights is name and version of the installed package that holds them.
    """
    if backbone.get("gguf") is not None:
        return installed_version(backbone.gguf.package)
    if backbone.get("random") is not None:
        from cso_lab.training.tiny_models import VERSION

        return f"random {VERSION}"
    return None


def load_chat_format(cfg: DictConfig) -> "ChatFormat":
    """Returns the backbone's chat format, with its own tokenizer and the template variables of the configuration.

    Raises UserError as `load_tokenizer` does.
    """
    from cso_lab.training.chat_format import ChatFormat

    return ChatFormat(load_tokenizer(cfg), template_variables(cfg))


def template_variables(cfg: DictConfig) -> dict:
    """Returns `backbone.chat_template_kwargs`; {} if there are none."""
    variables = cfg.backbone.get("chat_template_kwargs")
    return OmegaConf.to_container(variables, resolve=True) if variables else {}


def load_tokenizer(cfg: DictConfig) -> "PreTrainedTokenizerBase":
    """Returns the backbone's tokenizer, left-padding, whose EOS is the token its chat template ends a turn with.

    Some models (Gemma) end turns with another token than their tokenizer's EOS, and a trainer would append the EOS to every response as
    a second end. Raises UserError if there is no chat template or it cannot be used for training (see `check_chat_template`).
    """
    from transformers import AutoTokenizer

    from cso_lab.training.chat_format import ChatFormat, check_chat_template

    path = prepare_backbone(cfg)
    tokenizer = _from_pretrained(AutoTokenizer, path)
    if tokenizer.chat_template is None:
        raise UserError(f"the tokenizer of {path} has no chat template: choose an instruction-tuned model as backbone.path")
    tokenizer.padding_side = "left"
    variables = template_variables(cfg)
    tokenizer.eos_token = ChatFormat(tokenizer, variables).turn_end
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    check_chat_template(tokenizer, variables)
    return tokenizer


def load_model(cfg: DictConfig, checkpoint: Path | None = None, *, dtype: str | None = None) -> "PreTrainedModel":
    """Returns the backbone, or the model in a training run's checkpoint folder, in evaluation mode on `device(cfg)`.

    `checkpoint` is a full model or an adapter; an adapter is merged into the weights it was trained on, unless those are quantized: merging
    would round them anew. `dtype` is the name of the weights' type (default: `cfg.training.dtype`). Raises UserError if the model cannot
    be loaded.
    """
    resolved_device = device(cfg)
    torch_dtype = resolve_dtype(cfg.training.dtype if dtype is None else dtype, resolved_device)
    if checkpoint is None or not is_quantized(cfg):
        return load_weights(cfg, checkpoint, torch_dtype).to(resolved_device).eval()
    check_whole(checkpoint)
    return _with_adapter(load_base(cfg, _start(checkpoint), torch_dtype), checkpoint).get_base_model().eval()


def load_weights(cfg: DictConfig, checkpoint: Path | None, torch_dtype: "torch.dtype") -> "PreTrainedModel":
    """Returns the model of `load_model` on the CPU, with weights of type `torch_dtype`, an adapter merged into them in any case."""
    if checkpoint is None:
        return _pretrained_model(cfg, prepare_backbone(cfg), dtype=torch_dtype)
    checkpoint = Path(checkpoint)
    check_whole(checkpoint)
    if not is_adapter(checkpoint):
        return _pretrained_model(cfg, str(checkpoint), dtype=torch_dtype)
    base = load_base(cfg, _start(checkpoint), torch_dtype, whole=True)
    return _with_adapter(base, checkpoint).merge_and_unload()


def load_base(cfg: DictConfig, start: Path | None, torch_dtype: "torch.dtype", *, whole: bool = False) -> "PreTrainedModel":
    """Returns the weights that a training changes or puts an adapter on: the backbone's, or the model in the checkpoint `start`.

    Quantized weights are on `device(cfg)`, others on the CPU. An adapter in `start` is merged; what it is merged into is quantized
    again. `whole`: quantized weights are returned as the values they stand for, on the CPU.
    """
    if not is_quantized(cfg):
        return load_weights(cfg, start, torch_dtype)
    if start is None:
        options = loading_options(cfg, device(cfg), torch_dtype)
        model = _pretrained_model(cfg, prepare_backbone(cfg), **options)
        keep_unpacked(model)
    else:
        check_whole(start)
        model = _with_adapter(load_base(cfg, _start(start), torch_dtype), start).merge_and_unload()
    set_dtypes(model, torch_dtype)
    return dequantized(model, torch_dtype).cpu() if whole else model


def _pretrained_model(cfg: DictConfig, path: str, **options) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    return _from_pretrained(AutoModelForCausalLM, path, attn_implementation=cfg.backbone.attn_implementation, **options)


def _with_adapter(base: "PreTrainedModel", checkpoint: Path) -> "PeftModel":
    """Returns the model with the adapter of a checkpoint on it."""
    from peft import PeftModel

    with _load_errors(checkpoint, "if its files are damaged, delete that folder, and the run's own command trains it again"):
        return PeftModel.from_pretrained(base, str(checkpoint))


def _start(checkpoint: Path) -> Path | None:
    """Returns the checkpoint that an adapter was trained on, None if that is the backbone."""
    start = Path(checkpoint) / START
    return start if start.exists() else None


def check_whole(checkpoint: Path) -> None:
    """Raises UserError if a checkpoint's files differ from its manifest. A checkpoint without a manifest is not checked."""
    if (checkpoint / MANIFEST).exists() and (reason := damage(checkpoint)):
        raise UserError(f"{checkpoint} is damaged: {reason}; delete that folder, and the run's own command trains it again")


def is_adapter(checkpoint: Path) -> bool:
    """Returns whether a checkpoint folder holds an adapter. Raises UserError if it holds neither an adapter nor a model."""
    if (checkpoint / _ADAPTER_FILE).exists():
        return True
    if (checkpoint / "config.json").exists():
        return False
    raise UserError(f"no checkpoint in {checkpoint}: run the train stage of that run first")


def device(cfg: DictConfig) -> str:
    """Returns "cuda" or "cpu" for `cfg.hardware.device`. Raises UserError if it is not a valid name or no GPU is visible."""
    import torch

    setting = cfg.hardware.device
    if setting == "cuda" and not torch.cuda.is_available():
        raise UserError("hardware.device=cuda, but no GPU is visible here: use hardware=auto or hardware=cpu")
    return "cuda" if setting != "cpu" and torch.cuda.is_available() else "cpu"


def resolve_dtype(name: str, device: str) -> "torch.dtype":
    """Returns the torch dtype called `name`; "auto" is bfloat16 if the device multiplies it faster, else float32."""
    import torch

    if name != "auto":
        return getattr(torch, name)
    faster = torch.cuda.is_bf16_supported() if device == "cuda" else _cpu_multiplies_bfloat16()
    return torch.bfloat16 if faster else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    """Returns whether bfloat16 is faster than float32 on this CPU, by its instruction sets.

    It is not measured, since the machine's other load must not change a run's numbers. AMX multiplies bfloat16 at about twice the speed of
    float32. AVX-512's instruction for it (avx512_bf16) reached 2.4 times the speed of float32 on an EPYC, but half of it on a Xeon without
    AMX. Without either bfloat16 is about ten times slower.
    """
    import torch

    capabilities = torch.cpu.get_capabilities()
    on_amd = "AMD" in capabilities.get("cpu_name", "")
    return bool(capabilities.get("amx_bf16") or (capabilities.get("avx512_bf16") and on_amd))


def quiet_libraries() -> None:
    """Silences warnings and progress bars of the libraries that load models and rows; the stages have their own."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    # When it is imported it notes that it could download kernels for CPUs, which are not needed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import datasets
    import torch
    import transformers

    if not torch.cuda.is_available():
        # Otherwise DeepSpeed, which these imports load, warns that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # Deprecations between the libraries, about which a user can do nothing.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.|trl\.")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    # It notes at every step that an epoch's length does not follow from the rows alone.
    logging.getLogger("accelerate").setLevel(logging.WARNING)


def _from_pretrained(auto_class, path: str, **options):
    """Returns `auto_class.from_pretrained(path)`. Raises UserError if that fails."""
    advice = "give a model you have with backbone.path=FOLDER, or make it reachable (network, and a login for gated models)"
    with _load_errors(path, advice):
        return auto_class.from_pretrained(path, **options)


@contextmanager
def _load_errors(path: str | Path, advice: str) -> Iterator[None]:
    """Turns any error of loading `path` into a UserError of one line; an out-of-memory error is raised as it is."""
    quiet_libraries()
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # for unreadable files the libraries raise many types of errors, down to a bare Exception
        reason = " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())
        raise UserError(f"cannot load '{path}' ({reason}): {advice}") from error


def _create_once(folder: Path, create: Callable[[Path], None]) -> Path:
    """Returns `folder`, which `create(folder)` fills unless it exists; atomic, also if several processes call it."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                partial = folder.with_name(f".{folder.name}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                create(partial)
                os.replace(partial, folder)
    return folder


def _convert_gguf(package: str, file: str, folder: Path) -> None:
    """Converts an installed package's GGUF file to a float32 safetensors model with its tokenizer, without importing the package."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = find_spec(package)
    if spec is None:
        raise UserError(f"the package {package!r} with the embedded model is not installed: run `make setup`")
    source = spec.submodule_search_locations[0]
    tokenizer = _from_pretrained(AutoTokenizer, source, gguf_file=file)
    model = _from_pretrained(AutoModelForCausalLM, source, gguf_file=file, dtype=torch.float32)
    # The weights are dequantized, but with these attributes the model could be neither saved nor trained.
    if hasattr(model, "hf_quantizer"):
        del model.hf_quantizer
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
