"""Which values results are found by: every key of the configuration changes the key of a stage, or is known to change no result."""

import copy
import os
import shutil
import subprocess
import sys
from functools import cache, reduce
from itertools import accumulate

import pytest
from omegaconf import OmegaConf
from project import CONF, ROOT, composed

from cso_lab.config.cells import starts_server, trains, trains_here
from cso_lab.config.result_settings import NO_EFFECT, no_effect
from cso_lab.pipeline.cell_names import cell_name, number_settings, varied
from cso_lab.pipeline.stages import RESULTS
from cso_lab.training import backbone, machine

SERVER = ("generation.engine=server", "generation.client.model=openai/m", "generation.client.api_base=http://127.0.0.1:9/v1")
CELLS = {
    "base": ("algo=base", "backbone=tiny_llama", "evaluation.testset=strategy"),
    "dpo": ("algo=dpo", "backbone=llama"),
    "qlora": ("algo=dpo", "mode=qlora", "hardware=zero2", "hardware.offload=true"),
    "kto, full, sampled": ("algo=kto", "mode=full", "backbone=gemma", "generation.temperature=1", "hardware=zero2"),
    "sft": ("algo=sft", "mcts=paper", "decoding=self_refine", "toxicity=detoxify"),
    "simpo": ("algo=simpo", "mcts=greedy", "mcts/reward=weakest", "toxicity=perspective"),
    "dpo_after_sft": ("algo=dpo_after_sft", "backbone=smollm2", "decoding=with_example", "hardware=slurm"),
    "random preferences": ("algo=ipo", "preferences=random", "mcts/reward=strategy_only", "preferences.dialogues=9"),
    "grpo": ("algo=grpo", "start=sft", "backbone=smollm2"),
    "dpo_decoupled": ("algo=dpo_decoupled", "start=sft"),
    "grpo on expanded data": ("algo=grpo", "data=escpro", "data.path=FILE"),
    "expanded data": ("algo=orpo", "data=escpro", "data.path=FILE"),
    "API": ("algo=base", "backbone=gpt_4o"),
    "asked seekers": ("algo=base", "backbone=gpt_4o", "conversation/seeker=llm", "conversation/harm=llm"),
    "served": ("algo=dpo", "backbone=tiny_qwen", *SERVER),
    "on a server of its own": ("algo=dpo", "backbone=tiny_llama", "generation.engine=server", "serving=transformers"),
}
# What must be found anew when a key below this node changes; one of them, since not every value is of use to all.
OF_NODE = {
    "backbone": {"train", "generate", "evaluate"},
    "algorithm": {"train", "generate", "evaluate"},
    "finetune_mode": {"train", "generate", "evaluate"},
    "data": {"search", "dataset", "generate"},
    "roles": {"search", "dataset", "train", "evaluate", "inspect"},
    "mcts": {"search"},
    "preferences": {"dataset"},
    "inspection": {"inspect"},
    "toxicity": {"inspect"},
    "training": {"train", "generate"},
    "generation": {"generate"},
    "serving": {"generate"},
    "decoding": {"generate", "evaluate"},
    "evaluation": {"evaluate", "testset"},
    "conversation": {"converse"},
    "hardware": {"train", "generate"},
    "rounds": {"train"},
    "round_start": {"train"},
}
START = {"name": "x", "label": "x", "recipe": "sft", "rows": "sft", "start": None, "trainer": None, "training": {"seed": 0}}


@cache
def cell(name: str) -> dict:
    """The resolved configuration of one of the CELLS; not to be changed."""
    return OmegaConf.to_container(composed(*CELLS[name]), resolve=True)


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
    stages = RESULTS if trains_here(cfg) else ("converse", "generate", "testset", "evaluate")
    return {stage: RESULTS[stage].settings(cfg) for stage in stages}


@pytest.mark.parametrize("name", CELLS)
def test_every_key_of_the_configuration_counts_or_is_known_to_change_no_result(name):
    cfg = copy.deepcopy(cell(name))
    before, numbers = settings(cfg), number_settings(cfg)
    # On a server, how the checkpoint was trained is part of what it generates.
    expected = {node: stages if trains_here(cfg) else stages | {"generate"} for node, stages in OF_NODE.items()}
    uncounted, counted, unnamed = [], [], []
    for node, last, place in list(leaves(cfg)):
        if (place == "algorithm.trainer" and not trains(cfg)) or (place == "serving.command" and not starts_server(cfg)):
            continue  # with a trainer, or a server of its own, it is another kind of cell
        value, idle = node[last], no_effect(cfg, place)
        node[last] = another(place, value)
        after = settings(cfg)
        changed = {stage for stage in before if before[stage] != after.get(stage)}
        if idle is None and not changed & expected.get(place.partition(".")[0], set()):
            uncounted.append(place)
        # Where nothing is trained, role players have no effect on the cell's numbers; its conversations are judged by one all the same.
        judged = {"converse"} if place.startswith("roles.") else set()
        if idle is not None and changed - {"evaluate"} - judged:
            counted.append(place)
        if changed - {"inspect", "scores", "evaluate"} - judged and number_settings(cfg) == numbers:
            unnamed.append(place)
        node[last] = value
    assert not uncounted, "change the key of no stage they are of, and stand on no list"
    assert not counted, "are said to change no result, and change its key"
    assert not unnamed, "change a result, and not the name of its cell"
    assert settings(cfg) == before


def test_every_key_that_is_said_to_change_no_result_is_one():
    found = [place for name in CELLS for _, _, place in leaves(cell(name))]
    nodes = {above for place in found for above in accumulate(place.split("."), "{}.{}".format)}
    assert not [key for entry in NO_EFFECT for key in entry.keys if key not in nodes]
    assert all(entry.reason for entry in NO_EFFECT)


@pytest.mark.parametrize(
    ("key", "other", "stages"),
    [
        ("data.validation_share", 0.3, {"search", "inspect", "testset", "generate", "converse"}),
        ("generation.dialogues", "validation", {"testset", "generate", "converse"}),
        ("roles.cut_replies", "refuse", {"search", "dataset"}),
        ("roles.on_policy", True, {"search", "dataset"}),
        ("backbone.chat_template_kwargs", {"enable_thinking": True}, {"train", "generate", "converse"}),
        ("roles.judge.noise", 0.5, {"search", "dataset"}),
        ("preferences.choose", "nearest", {"dataset"}),
        ("preferences.gold", False, {"dataset"}),
        ("preferences.balance", "strategy", {"dataset"}),
        ("finetune_mode.quantization", {"load_in_4bit": True}, {"train"}),
        ("hardware.offload", True, {"train"}),
    ],
)
def test_a_key_that_came_later_leaves_results_at_its_first_value_found(key, other, stages):
    cfg = copy.deepcopy(cell("random preferences"))
    before, numbers = settings(cfg), number_settings(cfg)
    *above, last = key.split(".")
    node = reduce(dict.__getitem__, above, cfg)
    del node[last]
    assert settings(cfg) == before and number_settings(cfg) == numbers
    node[last] = other
    after = settings(cfg)
    assert {stage for stage in after if after[stage] != before[stage]} == stages and number_settings(cfg) != numbers


def test_raising_the_version_of_a_stage_changes_its_key_and_no_other(monkeypatch):
    cfg = composed("hardware=cpu", "training.dtype=float32")
    before = {stage: RESULTS[stage].key(cfg) for stage in RESULTS}
    monkeypatch.setattr(RESULTS["train"], "version", RESULTS["train"].version + 1)
    assert {stage for stage in RESULTS if RESULTS[stage].key(cfg) != before[stage]} == {"train"}


@pytest.mark.long
def test_another_docstring_in_the_package_changes_no_key(tmp_path):
    shutil.copytree(ROOT / "cso_lab", tmp_path / "cso_lab", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONF, tmp_path / "conf")
    for file in (tmp_path / "cso_lab").rglob("*.py"):
        file.write_text(f'{file.read_text(encoding="utf-8")}\n"""Said otherwise."""\n', encoding="utf-8")
    line = ("algo=dpo_after_sft", "hardware=cpu", "training.dtype=float32")
    program = (
        f"import cso_lab, sys; sys.path.append({str(ROOT / 'tests')!r}); from project import composed\n"
        "from cso_lab.pipeline.stages import RESULTS\n"
        f"cfg = composed(*{line!r}); print(cso_lab.__file__, *(RESULTS[stage].key(cfg) for stage in RESULTS))"
    )
    environment = dict(os.environ) | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        str(tmp_path / "cso_lab" / "__init__.py"),
        *(RESULTS[s].key(composed(*line)) for s in RESULTS),
    ]


def test_what_auto_comes_to_here_is_part_of_the_key_and_not_auto(monkeypatch):
    lines = {"auto": [], "float32": ["training.dtype=float32"], "bfloat16": ["training.dtype=bfloat16"]}
    cells = {name: composed("algo=dpo_after_sft", "hardware=cpu", *line) for name, line in lines.items()}

    def keys(name, dtype="float32", where="cpu"):
        monkeypatch.setattr(backbone, "resolve_dtype", lambda name, device: dtype if name == "auto" else name)
        monkeypatch.setattr(backbone, "device", lambda cfg: where)
        monkeypatch.setattr(machine, "processor_flags", set)
        cells[name].hardware.device = where
        return [RESULTS[stage].key(cells[name]) for stage in ("train", "generate")]

    found = {name: keys(name) for name in lines}
    assert found["auto"] == found["float32"]
    assert keys("auto", "bfloat16") == found["bfloat16"]
    for one, other, on_gpu in zip(found["float32"], found["bfloat16"], keys("auto", "bfloat16", "cuda"), strict=True):
        assert len({one, other, on_gpu}) == 3


def test_samples_depend_on_what_is_drawn_together_and_greedy_replies_do_not():
    batch = ["generation.batch_size=4"]
    for temperature, same in ((0, True), (0.7, False)):
        one, other = [
            composed("hardware=cpu", "algo=base", f"generation.temperature={temperature}", *line) for line in ([], batch)
        ]
        assert (RESULTS["generate"].key(one) == RESULTS["generate"].key(other)) == same
        assert (cell_name(one) == cell_name(other)) == same
        assert varied(other, batch) == ({} if same else {"generation.batch_size": "4"})


def test_a_finished_result_is_found_without_torch_where_the_machine_is_known():
    program = (
        f"import sys; sys.path.append({str(ROOT / 'tests')!r}); from project import composed\n"
        "from cso_lab.pipeline.stages import RESULTS\n"
        "cfg = composed('algo=dpo_after_sft', 'hardware=cpu', 'training.dtype=float32')\n"
        "[RESULTS[name].key(cfg) for name in ('train', 'generate')]\n"
        "print([name for name in ('torch', 'transformers', 'trl', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
