"""Models of the shapes of the paper's backbones with random weights, made on their device: no file is loaded and nothing downloaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch
from uuid import uuid4

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# What `shape` makes narrower; the size of a head stays.
_WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")


def shape(hub_id: str, layers: int | None, shrink: int, vocabulary: int | None, tokens: int) -> "PretrainedConfig":
    """The published configuration with so many layers and tokens (None: all of them), and its widths divided by `shrink`.

    Its vocabulary is at least the `tokens` of the tokenizer. Raises ValueError if a width is no multiple of `shrink`.
    """
    from cso_lab.training.shapes import published_config

    config = published_config(hub_id, layers)
    for name in _WIDTHS:
        width, rest = divmod(getattr(config, name), shrink)
        if rest:
            raise ValueError(f"{name}={getattr(config, name)} of {hub_id} is no multiple of {shrink}")
        setattr(config, name, width)
    config.vocab_size = max(vocabulary or config.vocab_size, tokens)
    return config


@contextmanager
def random_weights(config: "PretrainedConfig", device: str) -> Iterator[None]:
    """Within it, models that the project loads have this configuration and random weights, the same ones each time."""
    import torch
    from transformers import AutoModelForCausalLM

    def build(path: str, *, dtype, attn_implementation: str, **options):
        torch.manual_seed(0)
        with torch.device(device):
            return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attn_implementation).eval()

    def unique(module) -> str:
        """TRL looks for reference log-probabilities by a hash of all weights, which takes a minute for 16 GB: here there are none yet."""
        return uuid4().hex

    with (
        patch.object(AutoModelForCausalLM, "from_pretrained", build),
        patch("trl.trainer.dpo_trainer.hash_module", unique),
        patch("trl.trainer.kto_trainer.hash_module", unique),
    ):
        yield
