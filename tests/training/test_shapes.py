"""The shapes of the paper's backbones are those of the published models."""

import pytest
from project import composed

from cso_lab.training.shapes import published_config


@pytest.mark.parametrize(
    ("backbone", "parameters"),
    [("llama", 8_030_261_248), ("qwen", 7_615_616_512), ("qwen32b", 32_763_876_352), ("gemma", 9_241_705_984)],
)
def test_a_backbone_of_the_paper_has_its_published_number_of_parameters(backbone, parameters):
    import torch
    from transformers import AutoModelForCausalLM

    config = published_config(composed(f"backbone={backbone}").backbone.path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert model.num_parameters() == parameters


def test_a_shape_is_to_be_had_with_fewer_layers_and_an_unknown_model_has_none():
    config = published_config("google/gemma-2-9b-it", layers=2)
    assert config.num_hidden_layers == 2 == len(config.layer_types)
    assert (config.final_logit_softcapping, config.attn_logit_softcapping, config.sliding_window) == (30.0, 50.0, 4096)
    assert published_config("google/gemma-2-9b-it").num_hidden_layers == 42
    assert published_config("a/model") is None
