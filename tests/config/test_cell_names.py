"""What a cell says of itself: the values it was given, and another model than its backbone's own."""

import pytest
from omegaconf import OmegaConf
from project import CONF, composed

from cso_lab.config.model_names import model_label, model_slug, other_path
from cso_lab.pipeline.cell_names import cell_name, varied
from cso_lab.pipeline.metadata import cell_metadata, tracked_cell

PUBLISHED = {"llama": "meta-llama/Llama-3.1-8B-Instruct", "qwen": "Qwen/Qwen2.5-7B-Instruct", "gemma": "google/gemma-2-9b-it"}


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_only_the_published_hub_id_is_the_backbones_own_path(backbone):
    assert OmegaConf.load(CONF / "backbone" / f"{backbone}.yaml").path == PUBLISHED[backbone]
    assert other_path(composed(f"backbone={backbone}")) is None
    assert other_path(composed(f"backbone={backbone}", f"backbone.path={PUBLISHED[backbone]}")) is None
    assert other_path(composed(f"backbone={backbone}", "backbone.path=/models/mine")) == "/models/mine"


def test_a_backbone_that_makes_its_weights_has_another_path_only_when_given_one():
    assert other_path(composed("backbone=smollm2")) is None
    assert other_path(composed("backbone=smollm2", "backbone.path=org/model")) == "org/model"
    assert other_path(composed("backbone.name=mine", "backbone.path=org/model")) is None  # a backbone of the user's own


@pytest.mark.parametrize(
    ("line", "label", "slug"),
    [
        (["backbone=smollm2"], "SmolLM2-135M-Instruct", "smollm2"),
        (["backbone=smollm2", "backbone.path=org/My-Model"], "org/My-Model", "My-Model"),
        (["backbone=llama", "backbone.path=/models/mine/"], "/models/mine/", "mine"),
        (["backbone=llama", "backbone.path=/models/mine/", "backbone.label=Mine"], "Mine", "mine"),
        (["backbone=tiny_llama", "backbone.path=./..."], "./...", "tiny_llama"),
        (["backbone=gpt_4o", "algo=base"], "GPT-4o", "gpt_4o"),
        (["backbone=gpt_4o", "algo=base", "backbone.model=openai/other"], "openai/other", "other"),
    ],
)
def test_another_model_is_named_by_its_path_in_numbers_folders_and_tags(line, label, slug, tmp_path):
    cfg = composed(*line)
    tracked = tracked_cell(cfg, tmp_path)
    assert (model_label(cfg), cell_metadata(cfg)["label"], tracked.config["cell"]["label"]) == (label,) * 3
    assert cell_name(cfg).startswith(f"{slug}-") and tracked.name == cell_name(cfg)
    assert tracked.tags[0] == model_slug(cfg) == slug


LINE = [
    *("algo=dpo", "+table=demo", "seed=2", "stages=[train]", "shared_dir=/tmp/x", "hydra.run.dir=/tmp/y", "data.path=FILE"),
    *("training.learning_rate=1e-5", "++algorithm.beta=0.3", "generation.batch_size=4", "roles.timeout=3", "mcts.c=2"),
]


def test_what_was_varied_are_the_values_given_that_count():
    assert varied(composed("algo=dpo"), LINE) == {"training.learning_rate": "1e-5", "algorithm.beta": "0.3", "mcts.c": "2"}
    assert varied(composed("algo=base"), LINE) == {}  # nothing is trained, so nothing of this counts
    assert varied(composed("algo=base"), ["generation.constrain=none"]) == {"generation.constrain": "none"}
