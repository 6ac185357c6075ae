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


def test_the_untrained_model_stands_at_0_and_seeds_share_a_point(cell):
    rows = table_rows(read_cells(folders_of(cell, "llama", seeds=(0, 2))))
    (points,) = curves(rows).values()
    assert {volume: [one.scores["Q"] for one in cells] for volume, cells in points.items()} == {
        0: [5.0],
        10: [10.0, 12.0],
        20: [20.0, 22.0],
    }


def test_the_figure_is_drawn_as_png_and_svg_with_every_model_and_its_sft(cell, tmp_path):
    folders = folders_of(cell, "llama") + folders_of(cell, "smollm2")
    text = write_report(folders, tmp_path, "Figure 4").read_text(encoding="utf-8")
    assert "[figure4.png](figure4.png)" in text and "[figure4.svg](figure4.svg)" in text
    png = (tmp_path / "figure4.png").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) > 10_000
    svg = (tmp_path / "figure4.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    for said in ("LLaMA-3.1-8B-Instruct, SFT", "SmolLM2-135M-Instruct", "dialogues of preference data", "Q_W ↑"):
        assert said in svg, said
    first = (tmp_path / "figure4.svg").read_bytes()
    write_report(folders, tmp_path, "Figure 4")
    assert (tmp_path / "figure4.svg").read_bytes() == first


def test_without_two_amounts_of_data_there_is_no_figure(cell, tmp_path):
    write_report(folders_of(cell, "llama")[:3], tmp_path, "Table 9")
    assert not list(tmp_path.glob("figure4.*"))
