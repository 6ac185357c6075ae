"""The probabilities with which a model continues a prompt in each of several ways."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from cso_lab.training.prefix_forest import build_prefix_trees
from cso_lab.training.tree_attention import tree_attention_enabled, tree_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def continuation_probabilities(
    model: "PreTrainedModel", prompt: Sequence[int], continuations: Sequence[Sequence[int]]
) -> list[float]:
    """Returns the probability of each of `continuations` (token ids, none empty) after `prompt`, at temperature 1.

    It takes one pass over the prefix tree of all of them, in which the prompt and common beginnings are computed once.
    """
    rows = [[*prompt, *continuation] for continuation in continuations]
    ((members, tree, paths),) = build_prefix_trees(rows, sum(map(len, rows)), model.device)
    # The tokens whose logits are needed: in each row those from the prompt's last token to the one before the last.
    before = [torch.from_numpy(path[len(prompt) - 1 : -1]).to(model.device) for path in paths]
    config = model.config.get_text_config()
    with torch.inference_mode(), tree_attention_enabled(config):
        logits = model(
            input_ids=tree.tokens[None],
            position_ids=tree.depth[None],
            use_cache=False,
            logits_to_keep=torch.cat(before),
            **tree_mask(tree.end, tree.depth, config, model.dtype),
        ).logits[0]
        scores = torch.log_softmax(logits.float(), dim=-1)
    probabilities = [0.0] * len(rows)
    for row, row_scores in zip(members, scores.split([len(path) for path in before]), strict=True):
        tokens = torch.tensor(continuations[row], device=model.device)
        probabilities[row] = float(row_scores.gather(1, tokens[:, None]).sum().exp())
    return probabilities
