"""The schema: what a value may be, which keys a node takes, and that every key of conf/ is explained."""

import pytest
import yaml
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf, open_dict
from project import CONF, ROOT, composed

from cso_lab.config.error_messages import explain
from cso_lab.config.help import usage
from cso_lab.config.schema import Configuration, check_schema
from cso_lab.config.validation import OpenNode
from cso_lab.core.errors import UserError

# Below these keys stand the settings of a class or library, which explains them, and rows of tables.
ELSEWHERE = (
    "peft",
    "trainer",
    "arguments",
    "search",
    "builder",
    "scorer",
    "deepspeed",
    "gguf",
    "rubric",
    "weights",
    "table14",
    "table15",
)
# What Hydra reads.
NO_VALUES = ("defaults", "hydra")


def refused(key, value):
    """What is said of one value in the whole configuration."""
    cfg = composed()
    with open_dict(cfg):
        OmegaConf.update(cfg, key, value, merge=False)
    with pytest.raises(UserError) as error:
        check_schema(cfg)
    return str(error.value)


@pytest.mark.parametrize("share", [1, -0.1, 27, "0.1", None, True, float("nan")])
def test_a_test_share_lies_from_0_to_below_1(share):
    assert refused("data.test_share", share).startswith(f"data.test_share={share}: should be ")


@pytest.mark.parametrize("part", ["0/2", "3/2", "1/0", "-1/2", "1", "a/b", "1/2/3", "", None, 0.5, "1.0/2"])
def test_a_shard_is_one_of_n_parts(part):
    said = "must be i/n with 1 <= i <= n, such as 1/1 (all of them) or 2/4"
    assert refused("data.shard", part) == f"data.shard={part}: {said}"


@pytest.mark.parametrize("count", [0, -5, 2.5, "ten", True])
def test_seed_dialogues_are_a_count_or_null(count):
    assert refused("data.seed_dialogues", count).startswith(f"data.seed_dialogues={count}: should be ")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("training.dtype", "float16", "training.dtype=float16: should be 'auto', 'bfloat16' or 'float32'"),
        ("hardware.device", "tpu", "hardware.device=tpu: should be 'auto', 'cpu' or 'cuda'"),
        ("generation.constrain", "all", "generation.constrain=all: should be 'none', 'format' or 'likelihood'"),
        ("training.gradient_checkpointing", "no", "training.gradient_checkpointing=no: should be 'auto', True or False"),
        ("algorithm.rows", "triples", "algorithm.rows=triples: should be 'pairs', 'kto', 'sft' or 'prompts', or null"),
        ("tracking.tags", [1], "tracking.tags=[1]: should be a valid string"),
        ("tracking.mode", "on", "tracking.mode=on: should be 'auto', 'online' or 'offline'"),
        ("toxicity.client", None, "toxicity.client=None: should be a valid dictionary"),
        ("roles.cut_replies", "keep", "roles.cut_replies=keep: should be 'trim' or 'refuse'"),
        ("backbone.chat_template_kwargs", 5, "backbone.chat_template_kwargs=5: should be a valid dictionary, or null"),
        ("backbone.chat_template_kwargs", {"tools": []}, "backbone.chat_template_kwargs={'tools': []}: must not hold tools"),
        ("evaluation", 5, "evaluation=5: should be a valid dictionary"),
        ("evaluation.cut", 3, "unknown key under evaluation 'cut': did you mean 'cuts'?"),
        ("training.kept_tokens", 3, "training.kept_tokens is called training.max_activation_tokens now"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(key, value, said):
    assert refused(key, value).startswith(said)


def test_a_missing_key_is_named():
    cfg = composed()
    with open_dict(cfg):
        del cfg.evaluation.cuts
    with pytest.raises(UserError, match="^evaluation lacks the key cuts: give evaluation.cuts=VALUE$"):
        check_schema(cfg)


@pytest.mark.parametrize(
    "node", [name for name, field in Configuration.model_fields.items() if hasattr(field.annotation, "model_fields")]
)
def test_only_nodes_of_a_users_own_yaml_take_other_keys(node):
    if issubclass(Configuration.model_fields[node].annotation, OpenNode) and node != "generation":
        cfg = composed()
        with open_dict(cfg):
            cfg[node].mine = 1
        check_schema(cfg)
    else:
        assert refused(f"{node}.mine", 1).startswith(f"unknown key under {node} 'mine'")


def keys(file):
    """The keys of a YAML file as (path, whether a comment stands right above)."""
    lines = file.read_text(encoding="utf-8").splitlines()

    def below(node, path):
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.value in NO_VALUES or path and path[-1] in ELSEWHERE and key.value != "name":
                continue
            yield (*path, key.value), lines[key.start_mark.line - 1].lstrip().startswith("#")
            yield from below(value, (*path, key.value))

    return list(below(yaml.compose("\n".join(lines)), ()))


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda file: str(file.relative_to(CONF)))
def test_every_key_has_a_comment_above_it(file):
    """In its file, or in one of the same choice, from which the files of that choice take their keys."""
    group = CONF / file.relative_to(CONF).parts[0]
    explained = {
        path[-1] for other in ([file] if group == file else group.rglob("*.yaml")) for path, above in keys(other) if above
    }
    roles = {folder.name for folder in group.iterdir()} if group.is_dir() else set()
    assert not [".".join(path) for path, _ in keys(file) if path[-1] not in explained | roles]


@pytest.mark.parametrize("group", sorted(folder.parents[0] for folder in CONF.rglob("common")), ids=lambda group: group.name)
def test_the_files_that_others_start_from_are_no_choices(group):
    """Neither in the help nor in what an unknown option is answered with."""
    assert "common" not in usage(ROOT) and "keys" not in usage(ROOT)
    choice = str(group.relative_to(CONF))
    with pytest.raises(MissingConfigException) as error:
        composed(f"{choice}=nothing")
    options = str(explain(error.value)).partition("valid: ")[2].split(", ")
    assert options == sorted(file.stem for file in group.glob("*.yaml"))
