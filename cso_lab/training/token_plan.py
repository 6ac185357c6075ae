"""What a training reads, counted on its rows in the order of their batches, without a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from math import ceil
from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig

from cso_lab.config.cells import zero_stage
from cso_lab.training.arguments import batches, unshared_batch
from cso_lab.training.prefix_forest import TokenCount, build_prefix_trees
from cso_lab.training.rows import RESPONSES, fit_rows
from cso_lab.training.samplers import Layout, Partitioner, tree_order
from cso_lab.training.traced_pass import Text

if TYPE_CHECKING:
    from cso_lab.training.chat_format import ChatFormat

# Rows that are tokenized, whole dialogues of them; the numbers of more are in proportion.
SAMPLED_ROWS = 512


@dataclass(frozen=True)
class TokenPlan:
    """The tokens of a training, those of its reference model and of KTO's KL term included.

    `computed` are the distinct ones, `as_rows` those that TRL would compute for the same rows, padded; of the computed ones, `learnt` are
    read with a backward pass, and `scored` of them are asked for by the output layer. `largest` are the texts of the largest forward
    pass's largest tree, which has `tree` tokens; all trees of that pass have `at_once`.
    """

    rows: int
    steps: int
    computed: int
    learnt: int
    as_rows: int
    scored: int
    at_once: int
    tree: int
    largest: list[Text]


def plan_tokens(cfg: DictConfig, rows: Sequence[dict], chat: "ChatFormat") -> TokenPlan:
    """Returns the tokens of training on these rows of a preference file. Raises UserError if none of them fits."""
    training = cfg.training
    sample = _whole_dialogues(rows)
    limits = (training.max_prompt_length, training.max_target_length)
    fitted, counts = fit_rows(sample, chat, *limits, None, training.seed)
    used = round(len(rows) * counts.used / counts.read)
    used = min(used, training.max_rows or used)
    an_epoch = ceil(used / training.batch_size)
    steps = training.max_steps if training.max_steps > 0 else ceil(training.num_train_epochs * an_epoch)
    passes = _passes(cfg, fitted)
    read = TokenCount(sum(field in fitted[0] for field in RESPONSES), unshared_batch(training))
    mismatched = TokenCount(1, unshared_batch(training))
    scored, most, at_once, largest = 0, 0, 0, []
    for part in passes:
        texts = _texts(part, chat)
        trees = list(_trees(texts, training))
        tokens = sum(len(tree) for tree, _ in trees)
        read.add(_mask(texts), tokens)
        scored += sum(len(text.ids) - text.prompt for text in _distinct(texts))
        if _has_kl_term(cfg):
            others = _mismatched(part, chat)
            mismatched.add(_mask(others), sum(len(tree) for tree, _ in _trees(others, training)))
        if tokens > at_once:
            at_once = tokens
            tree, members = max(trees, key=lambda pair: len(pair[0]))
            most, largest = len(tree), [texts[member] for member in members]
    per_epoch = used / len(fitted)
    epochs = min(steps / an_epoch, max(training.num_train_epochs, steps / an_epoch))
    learnt, reference = epochs * per_epoch, _reference_readings(cfg, epochs) * per_epoch
    return TokenPlan(
        rows=used,
        steps=steps,
        computed=round((read.computed + mismatched.computed) * (learnt + reference)),
        learnt=round(read.computed * learnt),
        as_rows=round((read.as_rows + mismatched.as_rows) * (learnt + reference)),
        scored=round(scored * learnt),
        at_once=at_once,
        tree=most,
        largest=largest,
    )


def has_reference(cfg: DictConfig) -> bool:
    """Returns whether the algorithm compares with a reference model."""
    return "precompute_ref_log_probs" in (cfg.algorithm.arguments or {})


def reads_reference_before(cfg: DictConfig) -> bool:
    """Returns whether the reference model's log-probabilities are computed once, before the first step."""
    return has_reference(cfg) and cfg.algorithm.arguments.precompute_ref_log_probs and zero_stage(cfg) != 3


def _reference_readings(cfg: DictConfig, epochs: float) -> float:
    """Returns how often the reference model reads the rows of an epoch."""
    if not has_reference(cfg):
        return 0
    return min(epochs, 1) if reads_reference_before(cfg) else epochs


def _whole_dialogues(rows: Sequence[dict]) -> list[dict]:
    """Returns the rows of as many dialogues, from the first on, as have SAMPLED_ROWS rows."""
    of_dialogue: dict[str, list[dict]] = {}
    for row in rows:
        of_dialogue.setdefault(row.get("dialogue", ""), []).append(row)
    sample: list[dict] = []
    for group in of_dialogue.values():
        if len(sample) >= SAMPLED_ROWS:
            break
        sample += group
    return sample


def _passes(cfg: DictConfig, rows: Sequence[dict]) -> list[list[dict]]:
    """Returns the rows of each forward pass of each process, for one epoch."""
    training = cfg.training
    layout = Layout(len(rows), training.batch_size, batches(cfg)[0], cfg.hardware.processes)
    order: Sequence[int] = range(len(rows))  # `fit_rows` has shuffled them
    if training.batching == "tree":
        dialogues, prompts = [row["dialogue"] for row in rows], [row["prompt"] for row in rows]
        order = Partitioner(rows, layout)(tree_order(dialogues, prompts, training.batch_size, training.seed))
    sizes = chain.from_iterable(chain(*layout.step(number)) for number in range(layout.steps))
    cuts = pairwise(accumulate(sizes, initial=0))
    return [[rows[i] for i in order[first:last]] for first, last in cuts if first < last]


def _texts(rows: Sequence[dict], chat: "ChatFormat") -> list[Text]:
    """Returns the texts of a batch: the first response of every row, then the next one of every row."""
    fields = [field for field in RESPONSES if field in rows[0]]
    prompts = [len(chat.ids(row["prompt"])) for row in rows]
    return [
        Text(chat.ids(row["prompt"] + row[field]), prompt)
        for field in fields
        for row, prompt in zip(rows, prompts, strict=True)
    ]


def _has_kl_term(cfg: DictConfig) -> bool:
    """Returns whether prompts are also read with the responses of other rows, without a backward pass, as for KTO's KL term."""
    return cfg.algorithm.rows == "kto" and cfg.algorithm.arguments.get("loss_type", "kto") == "kto"


def _mismatched(rows: Sequence[dict], chat: "ChatFormat") -> list[Text]:
    """Returns each prompt with the response of the row before."""
    return _texts(
        [{**row, "completion": other["completion"]} for row, other in zip(rows, [rows[-1], *rows], strict=False)], chat
    )


def _trees(texts: Sequence[Text], training: DictConfig):
    """Yields (tree, its texts' indices); without shared prefixes the whole batch, padded, is one."""
    if not training.share_prefixes:
        yield range(max(len(text.ids) for text in texts) * len(texts)), range(len(texts))
        return
    for members, tree, _ in build_prefix_trees([text.ids for text in texts], training.tokens_per_tree, torch.device("cpu")):
        yield tree, members


def _mask(texts: Sequence[Text]) -> torch.Tensor:
    lengths = torch.tensor([len(text.ids) for text in texts])
    return torch.arange(int(lengths.max()))[None, :] < lengths[:, None]


def _distinct(texts: Sequence[Text]) -> list[Text]:
    return list({tuple(text.ids): text for text in texts}.values())
