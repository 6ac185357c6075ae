import pytest

from cso_lab.core.published import backbones, published_scores, table_names


@pytest.mark.parametrize(
    ("table", "backbone", "row", "expected"),
    [
        ("2", "llama", "lora.dpo", (34.51, 1.11, 41.11, 23.89)),
        ("2", "gpt_4o_mini", "base", (35.68, 2.65, 42.08, 24.91)),
        ("2", "claude_3_7_sonnet", "base", (31.50, 1.18, 48.13, 21.01)),
        ("2", "gemma", "direct_refine", (7.79, 2.55, 12.86, 21.67)),
        ("2", "qwen", "full.sft", (21.73, 2.34, 31.24, 23.54)),
        ("4", "llama", "base", (29.79, 1.18, 38.77, 23.48)),
        ("4", "qwen", "base", (19.83, 2.47, 28.12, 23.52)),
        ("4", "gemma", "random", (29.86, 1.22, 44.58, 25.75)),
        ("9", "llama", "base", (29.79, 1.18, 38.78, 23.48)),
        ("9", "llama", "full.kto", (32.60, 0.88, 36.63, 25.84)),
        ("9", "llama", "lora.simpo", (33.43, 1.04, 40.55, 23.41)),
        ("10", "qwen", "full.orpo", (22.20, 1.24, 35.91, 24.58)),
        ("10", "qwen", "lora.ipo", (22.71, 2.21, 28.75, 23.49)),
        ("11", "gemma", "full.kto", (39.73, 0.81, 48.87, 27.84)),
        ("11", "gemma", "lora.orpo", (32.35, 1.30, 48.14, 25.85)),
        ("12", "qwen32b", "with_example", (20.66, 2.65, 24.40, 21.93)),
        ("12", "qwen32b", "lora.dpo", (38.53, 1.29, 43.95, 24.65)),
    ],
)
def test_the_papers_numbers(table, backbone, row, expected):
    assert published_scores(backbone, row, table) == dict(zip(("Q", "B", "Q_W", "R-L"), expected, strict=True))


def test_what_a_table_lacks_comes_from_another_and_what_the_paper_lacks_is_none():
    assert published_scores("llama", "lora.kto", "2")["Q"] == 32.80  # in Table 9 only
    assert published_scores("llama", "base")["Q_W"] == 38.78
    assert published_scores("smollm2", "lora.dpo") is None
    assert published_scores("qwen32b", "full.dpo") is None
    assert published_scores("llama", "full") is None
    assert published_scores("llama", "lora.dpo.more") is None


def test_the_tables_agree_with_table_2_but_for_two_values():
    rows = ["base", *(f"{mode}.{algo}" for mode in ("full", "lora") for algo in ("sft", "dpo"))]
    differing = {
        (table, backbone, row)
        for table in table_names()
        for backbone in ("llama", "qwen", "gemma")
        for row in rows
        if published_scores(backbone, row, table) != published_scores(backbone, row, "2")
    }
    assert differing == {("4", "llama", "base"), ("4", "qwen", "base")}
    assert len(backbones()) == 9


def test_a_method_that_the_paper_has_not_has_no_scores_of_it():
    for row in ("lora.grpo", "full.grpo", "lora.dpo_decoupled", "full.dpo_decoupled"):
        assert published_scores("llama", row) is None and published_scores("llama", row, "9") is None
