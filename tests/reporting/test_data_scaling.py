"""Figure 4 from metrics.json files alone."""

from xml.etree import ElementTree

from cso_lab.reporting.cells import read_cells
from cso_lab.reporting.data_scaling import VOLUME, curves
from cso_lab.reporting.report import write_report
from cso_lab.reporting.rows import table_rows

SIZES = (10, 20)


def folders_of(cell, backbone, seeds=(0,)):
    made = [cell(f"{backbone}-base", backbone=backbone, algo="base", q=5.0)]
    made.append(cell(f"{backbone}-sft", backbone=backbone, algo="sft", q=12.0, context={VOLUME: 20}))
    for size in SIZES:
        for seed in seeds:
            values = {"q": size + seed, "seed": seed, "variant": str(size), "context": {VOLUME: size}}
            made.append(cell(f"{backbone}-{size}-{seed}", backbone=backbone, **values))
    return made


def q_of(curve):
    return {volume: [one.scores["Q"] for one in cells] for volume, cells in curve.points.items()}


def test_the_untrained_model_stands_at_0_and_seeds_share_a_point(cell):
    rows = table_rows(read_cells(folders_of(cell, "llama", seeds=(0, 2))))
    (curve,) = curves(rows)
    assert q_of(curve) == {0: [5.0], 10: [10.0, 12.0], 20: [20.0, 22.0]}


def test_the_figure_is_drawn_as_png_and_svg_with_every_model_and_its_sft(cell, tmp_path):
    folders = folders_of(cell, "llama") + folders_of(cell, "smollm2")
    text = write_report(folders, tmp_path, "Figure 4").read_text(encoding="utf-8")
    assert "[figure4.png](figure4.png)" in text and "[figure4.svg](figure4.svg)" in text
    png = (tmp_path / "figure4.png").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) > 10_000
    svg = (tmp_path / "figure4.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    for said in (
        "LLaMA-3.1-8B-Instruct, LoRA, SFT",
        "SmolLM2-135M-Instruct, LoRA, CSO-DPO",
        "dialogues of preference data",
        "Q_W ↑",
    ):
        assert said in svg, said
    first = (tmp_path / "figure4.svg").read_bytes()
    write_report(folders, tmp_path, "Figure 4")
    assert (tmp_path / "figure4.svg").read_bytes() == first


def test_without_two_amounts_of_data_there_is_no_figure(cell, tmp_path):
    write_report(folders_of(cell, "llama")[:3], tmp_path, "Table 9")
    assert not list(tmp_path.glob("figure4.*"))


def test_every_algorithm_and_mode_is_a_line_of_its_own(cell, tmp_path):
    folders = [cell("base", algo="base", q=5.0)]
    folders += [cell(f"sft-{mode}", algo="sft", mode=mode, q=9.0, context={VOLUME: 20}) for mode in ("lora", "full")]
    for shift, (algo, mode) in enumerate([("dpo", "lora"), ("dpo", "full"), ("kto", "lora")]):
        for size in SIZES:
            values = {"algo": algo, "mode": mode, "variant": str(size), "context": {VOLUME: size}}
            folders.append(cell(f"{algo}-{mode}-{size}", q=size + shift, **values))
    found = curves(table_rows(read_cells(folders)))
    assert {curve.name: (q_of(curve), list(curve.sft)) for curve in found} == {
        "SmolLM2-135M-Instruct, LoRA, CSO-DPO": ({0: [5.0], 10: [10.0], 20: [20.0]}, ["SmolLM2-135M-Instruct, LoRA, SFT"]),
        "SmolLM2-135M-Instruct, Full, CSO-DPO": ({0: [5.0], 10: [11.0], 20: [21.0]}, ["SmolLM2-135M-Instruct, Full, SFT"]),
        "SmolLM2-135M-Instruct, LoRA, CSO-KTO": ({0: [5.0], 10: [12.0], 20: [22.0]}, []),
    }
    write_report(folders, tmp_path, "Figure 4")
    svg = (tmp_path / "figure4.svg").read_text(encoding="utf-8")
    assert all(curve.name in svg for curve in found)


def test_cells_that_differ_in_another_choice_or_value_are_not_pooled(cell):
    folders = []
    for rate in ("1e-5", "1e-4"):
        for size in SIZES:
            varied = {"preferences.dialogues": str(size), "training.learning_rate": rate}
            values = {"variant": f"{rate}{size}", "varied": varied, "context": {VOLUME: size}}
            folders.append(cell(f"{rate}-{size}", q=size + float(rate), **values))
    for constrain in ("format", "none"):
        folders.append(cell(f"base-{constrain}", algo="base", q=5.0, context={"constrain": constrain}))
    found = curves(table_rows(read_cells(folders)))
    assert {curve.name: list(q_of(curve)) for curve in found} == {
        f"SmolLM2-135M-Instruct, LoRA, CSO-DPO [training.learning_rate={rate}]": [0, 10, 20] for rate in ("1e-5", "1e-4")
    }
    assert all(len(cells) == 1 and cells[0].context["constrain"] == "format" for one in found for cells in one.points.values())


def test_two_amounts_are_drawn_without_the_untrained_model_and_one_is_not(cell, tmp_path):
    from cso_lab.reporting.html.data_scaling import data_scaling
    from cso_lab.reporting.html.report_data import ReportData

    folders = folders_of(cell, "llama")[2:]
    (curve,) = curves(table_rows(read_cells(folders)))
    assert (list(curve.points), dict(curve.sft)) == ([10, 20], {})
    write_report(folders, tmp_path / "two", "Figure 4")
    assert (tmp_path / "two" / "figure4.png").exists()
    charts = data_scaling(ReportData(folders, tmp_path / "two")).values["charts"]
    assert [trace["name"] for trace in charts[0].figures["Q"]["data"]] == ["LLaMA-3.1-8B-Instruct, LoRA, CSO-DPO"]
    assert curves(table_rows(read_cells(folders[:1]))) == []
