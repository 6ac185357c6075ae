"""Tiny random models with the tokenizer and chat template peculiarities of real model families, for tests without downloads."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from cso_lab.core.errors import unknown

# Increase when the weights or the tokenizer change for the same architecture and seed.
VERSION = 2
# So many that English text has about as many tokens as with a real model's tokenizer.
_VOCABULARY_SIZE = 4096
_SHAPE = {
    "vocab_size": _VOCABULARY_SIZE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}

_LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_QWEN_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_GEMMA_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n'"
    " + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


@dataclass(frozen=True)
class _Architecture:
    """A family's model class, special tokens and chat template, reduced to what matters to rows and trainers."""

    config: str
    model: str
    template: str
    specials: tuple[str, ...]
    bos: str | None
    eos: str
    pad: str
    # Llama's and Gemma's tokenizers put BOS before any text, although their templates write it too.
    adds_bos: bool = False
    extra: Callable[[], dict] = dict


_ARCHITECTURES = {
    "llama": _Architecture(
        config="LlamaConfig",
        model="LlamaForCausalLM",
        template=_LLAMA_TEMPLATE,
        specials=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|finetune_right_pad_id|>"),
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        pad="<|finetune_right_pad_id|>",
        adds_bos=True,
    ),
    "qwen": _Architecture(
        config="Qwen2Config",
        model="Qwen2ForCausalLM",
        template=_QWEN_TEMPLATE,
        specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
    ),
    "gemma": _Architecture(
        config="Gemma2Config",
        model="Gemma2ForCausalLM",
        template=_GEMMA_TEMPLATE,
        specials=("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        pad="<pad>",
        adds_bos=True,
        extra=lambda: {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 4096},
    ),
}


def save_tiny_model(architecture: str, folder: Path, seed: int) -> None:
    """Writes a random two-layer model (width 64) and its tokenizer to `folder`.

    The tokenizer has the words of the sample corpus, and single bytes for any other text. The weights depend on `seed` only, and the
    process's random state does not change. Raises UserError if the architecture is unknown.
    """
    import torch
    import transformers

    if architecture not in _ARCHITECTURES:
        raise unknown("backbone.random.architecture", architecture, _ARCHITECTURES)
    parts = _ARCHITECTURES[architecture]
    tokenizer = _tokenizer(parts)
    config = getattr(transformers, parts.config)(
        **_SHAPE,
        **parts.extra(),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, parts.model)(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer(parts: _Architecture):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY_SIZE,
        special_tokens=list(parts.specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_english(), trainer)
    if parts.adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{parts.bos} $A", special_tokens=[(parts.bos, tokenizer.token_to_id(parts.bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=parts.bos,
        eos_token=parts.eos,
        pad_token=parts.pad,
        chat_template=parts.template,
        model_max_length=_SHAPE["max_position_embeddings"],
        clean_up_tokenization_spaces=False,
    )


def _english() -> Iterator[str]:
    """Yields the texts of the sample corpus, from which the tokenizer learns its merges."""
    for record in json.loads((resources.files("cso_lab.corpora") / "sample.json").read_text(encoding="utf-8")):
        yield record["description"]
        for turn in record["content"]:
            yield from turn.values()
