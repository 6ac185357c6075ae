"""How likely a model is to go on in each of several ways."""

from collections.abc import Sequence

import torch

from cso_lab.training.prefix_forest import build_prefix_trees
from cso_lab.training.tree_attention import tree_attention_enabled, tree_mask


def continuation_probabilities(model, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[float]:
    """For each of `continuations` (token ids, none empty), the probability that the model writes it after `prompt`, at temperature 1.

    One pass over the prefix tree of all of them: the prompt is read once, and so is whatever continuations have in common.
    """
    rows = [[*prompt, *continuation] for continuation in continuations]
    ((members, tree, paths),) = build_prefix_trees(rows, sum(map(len, rows)), model.device)
    # The tokens whose logits are needed: in each row all from the prompt's last one on but for its own last one.
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
    for row, own in zip(members, scores.split([len(path) for path in before]), strict=True):
        written = torch.tensor(continuations[row], device=model.device)
        probabilities[row] = float(own.gather(1, written[:, None]).sum().exp())
    return probabilities
