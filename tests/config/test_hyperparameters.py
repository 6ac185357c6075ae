"""The 36 trained cells of Tables 9 to 11 take the paper's values (Tables 14 and 15, typed again here)."""

import pytest
from project import composed

# (epochs, batch size, learning rate) of SFT and of every preference algorithm
TABLE_14 = {
    ("llama", "full"): ((1, 32, 5e-7), (3, 32, 5e-7)),
    ("llama", "lora"): ((3, 32, 1e-6), (3, 32, 1e-6)),
    ("qwen", "full"): ((1, 32, 5e-7), (3, 32, 6e-7)),
    ("qwen", "lora"): ((3, 32, 1e-6), (1, 128, 5e-7)),
    ("gemma", "full"): ((1, 32, 5e-7), (1, 32, 5e-7)),
    ("gemma", "lora"): ((3, 32, 5e-7), (3, 8, 6e-7)),
}
# beta of DPO, (beta, gamma) of SimPO, beta of IPO, (beta, chosen weight, rejected weight) of KTO, beta of ORPO
TABLE_15 = {
    ("llama", "full"): (0.7, (3.3, 2.0), 1.0, (0.9, 1.0, 0.5), 1.3),
    ("llama", "lora"): (0.01, (2.0, 0.5), 0.1, (0.01, 1.0, 1.0), 1.0),
    ("qwen", "full"): (0.1, (1.5, 3.5), 0.5, (0.07, 1.0, 0.5), 0.7),
    ("qwen", "lora"): (0.1, (3.5, 3.0), 0.01, (0.05, 1.0, 0.5), 2.0),
    ("gemma", "full"): (0.5, (3.5, 2.0), 1.0, (0.5, 1.0, 0.6), 0.06),
    ("gemma", "lora"): (0.1, (1.5, 2.0), 0.2, (0.5, 1.0, 0.3), 0.02),
}


@pytest.mark.parametrize(("backbone", "mode"), TABLE_14)
def test_the_cells_of_a_backbone_and_mode_take_the_papers_values(backbone, mode):
    sft, cso = TABLE_14[backbone, mode]
    dpo, simpo, ipo, kto, orpo = TABLE_15[backbone, mode]
    own = {
        "sft": {},
        "dpo": {"beta": dpo},
        "simpo": {"beta": simpo[0], "gamma": simpo[1]},
        "ipo": {"beta": ipo},
        "kto": {"beta": kto[0], "desirable_weight": kto[1], "undesirable_weight": kto[2]},
        "orpo": {"beta": orpo},
    }
    for algo, values in own.items():
        cfg = composed(f"backbone={backbone}", f"algo={algo}", f"mode={mode}")
        training = cfg.training
        row = sft if algo == "sft" else cso
        assert (training.num_train_epochs, training.batch_size, training.learning_rate) == row, algo
        assert {key: cfg.algorithm[key] for key in values} == values, algo


def test_a_value_on_the_command_line_wins():
    cfg = composed("backbone=gemma", "algo=kto", "mode=lora", "training.learning_rate=1e-4", "algorithm.beta=0.7")
    assert cfg.training.learning_rate == 1e-4
    assert cfg.algorithm.arguments.beta == 0.7


@pytest.mark.long
@pytest.mark.parametrize(
    ("backbone", "family"), [("tiny_llama", "llama"), ("tiny_qwen", "qwen"), ("tiny_gemma", "gemma"), ("qwen32b", "qwen")]
)
def test_a_backbone_outside_the_papers_rows_takes_its_familys(backbone, family):
    for algo in ("sft", "dpo", "simpo", "ipo", "kto", "orpo"):
        for mode in ("full", "lora"):
            # tiny models have a number type of their own
            line = (f"algo={algo}", f"mode={mode}", "training.dtype=auto")
            own, familys = (composed(f"backbone={name}", *line) for name in (backbone, family))
            assert own.training == familys.training and own.algorithm == familys.algorithm


def test_smollm2_has_values_of_its_own():
    for algo in ("sft", "dpo"):
        own, llama = (composed(f"backbone={name}", f"algo={algo}") for name in ("smollm2", "llama"))
        assert own.training.learning_rate > 100 * llama.training.learning_rate
        assert own.training.max_steps > 0 and llama.training.max_steps == -1


def test_a_reply_may_have_the_papers_512_tokens_unless_the_backbone_says_less():
    found = [composed(f"backbone={name}").generation.max_new_tokens for name in ("llama", "qwen32b", "smollm2", "tiny_qwen")]
    assert found == [512, 512, 96, 64]
    assert composed("backbone=smollm2").training.max_target_length == 512
    assert composed("backbone=smollm2", "generation.max_new_tokens=512").generation.max_new_tokens == 512
