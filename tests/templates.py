"""Tokenizers with tiny vocabularies and chat templates of real models or written for tests."""

import re
from importlib.util import find_spec
from pathlib import Path

_STORED = Path(find_spec("trl").submodule_search_locations[0]) / "chat_templates"
# TRL's own variants for training are left out: no model comes with them.
STORED = sorted(path.stem for path in _STORED.glob("*.jinja") if not path.stem.endswith("_training"))

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_MARK = re.compile(r"<[^<>\s'\"{}]+>")


def stored(name: str) -> str:
    """Returns the text of a chat template that TRL includes."""
    return (_STORED / f"{name}.jinja").read_text(encoding="utf-8")


def tokenizer(template: str, eos: str = "</s>"):
    """Returns a byte-level tokenizer without merges, with the template's marks as special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[]))
    letters.pre_tokenizer, letters.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=letters, bos_token="<s>", eos_token=eos, chat_template=template)
    made.add_tokens(sorted(set(_MARK.findall(template))), special_tokens=True)
    return made
