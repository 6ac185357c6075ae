"""Which values results are found by: every key of the configuration changes the key of a stage, or is known to change no result."""

from itertools import accumulate

import pytest
from omegaconf import OmegaConf
from project import composed

from cso_lab.pipeline.settings import NO_EFFECT, SETTINGS, no_effect, of_numbers, trains, trains_here

SERVER = ("generation.engine=server", "generation.client.model=openai/m", "generation.client.api_base=http://127.0.0.1:9/v1")
CELLS = {
    "base": ("algo=base", "backbone=tiny_llama", "evaluation.testset=strategy"),
    "dpo": ("algo=dpo", "backbone=llama"),
    "kto, full, sampled": ("algo=kto", "mode=full", "backbone=gemma", "generation.temperature=1", "hardware=zero2"),
    "sft": ("algo=sft", "mcts=paper", "decoding=self_refine", "toxicity=detoxify"),
    "simpo": ("algo=simpo", "mcts=greedy", "mcts/reward=weakest", "toxicity=perspective"),
    "dpo_after_sft": ("algo=dpo_after_sft", "backbone=smollm2", "decoding=with_example", "hardware=slurm"),
    "random preferences": ("algo=ipo", "preferences=random", "mcts/reward=strategy_only", "preferences.dialogues=9"),
    "expanded data": ("algo=orpo", "data=escpro", "data.path=FILE"),
    "API": ("algo=base", "backbone=gpt_4o"),
    "served": ("algo=dpo", "backbone=tiny_qwen", *SERVER),
}
# What must be found anew when a key below this node changes; one of them, since not every value is of use to all.
OF_NODE = {
    "backbone": {"train", "generate", "evaluate"},
    "algorithm": {"train", "generate", "evaluate"},
    "finetune_mode": {"train", "generate", "evaluate"},
    "data": {"search", "dataset", "generate"},
    "roles": {"search", "dataset", "evaluate", "inspect"},
    "mcts": {"search"},
    "preferences": {"dataset"},
    "inspection": {"inspect"},
    "toxicity": {"inspect"},
    "training": {"train", "generate"},
    "generation": {"generate"},
    "decoding": {"generate", "evaluate"},
    "evaluation": {"evaluate", "testset"},
    "hardware": {"train", "generate"},
}
START = {"name": "x", "label": "x", "recipe": "sft", "rows": "sft", "start": None, "trainer": None, "training": {"seed": 0}}


def leaves(node: dict, above: str = ""):
    """(node, name, dotted key) of all values; a list is one value."""
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{above}{name}.")
        else:
            yield node, name, f"{above}{name}"


def another(place: str, value: object) -> object:
    """A value other than `value`, of its kind."""
    if place.endswith(".start"):
        return START
    if place == "generation.engine":
        return "server" if value == "local" else "local"
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return {list: [value, "x"], dict: {"x": 1}, str: f"{value}x"}.get(type(value), 1)


def settings(cfg: dict) -> dict:
    """What the keys of the cell's stages are made of."""
    stages = SETTINGS if trains_here(cfg) else ("generate", "testset", "evaluate")
    return {stage: SETTINGS[stage](cfg) for stage in stages}


@pytest.mark.parametrize("name", CELLS)
def test_every_key_of_the_configuration_counts_or_is_known_to_change_no_result(name):
    cfg = OmegaConf.to_container(composed(*CELLS[name]), resolve=True)
    before, numbers = settings(cfg), of_numbers(cfg)
    # On a server, how the checkpoint was trained is part of what it generates.
    expected = {node: stages if trains_here(cfg) else stages | {"generate"} for node, stages in OF_NODE.items()}
    uncounted, counted, unnamed = [], [], []
    for node, last, place in list(leaves(cfg)):
        if place == "algorithm.trainer" and not trains(cfg):
            continue  # with a trainer it is another kind of cell
        value, idle = node[last], no_effect(cfg, place)
        node[last] = another(place, value)
        after = settings(cfg)
        changed = {stage for stage in before if before[stage] != after.get(stage)}
        if idle is None and not changed & expected.get(place.partition(".")[0], set()):
            uncounted.append(place)
        if idle is not None and changed - {"evaluate"}:
            counted.append(place)
        if changed - {"inspect", "scores", "evaluate"} and of_numbers(cfg) == numbers:
            unnamed.append(place)
        node[last] = value
    assert not uncounted, "change the key of no stage they are of, and stand on no list"
    assert not counted, "are said to change no result, and change its key"
    assert not unnamed, "change a result, and not the name of its cell"
    assert settings(cfg) == before


def test_every_key_that_is_said_to_change_no_result_is_one():
    cells = [OmegaConf.to_container(composed(*line), resolve=True) for line in CELLS.values()]
    nodes = {place for cell in cells for _, _, leaf in leaves(cell) for place in accumulate(leaf.split("."), "{}.{}".format)}
    assert not [key for entry in NO_EFFECT for key in entry.keys if key not in nodes]
    assert all(entry.reason for entry in NO_EFFECT)
