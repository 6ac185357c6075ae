"""report.tex: the paper's form, balanced and escaped."""

import re

from cso_lab.reporting.cells import read_cells
from cso_lab.reporting.report import write_report
from cso_lab.reporting.results_table import ResultsTable, escape_latex
from cso_lab.reporting.rows import table_rows


def tex(*folders, title="Table 9"):
    return ResultsTable(table_rows(read_cells(folders))).latex(title)


def balanced(text):
    """Whether environments and braces close in order, and every line of the table has the columns it declares."""
    plain = re.sub(r"\\[\\{}%&$#_]", "", text)
    depth = 0
    for character in plain:
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert plain.replace(r"\$", "").count("$") % 2 == 0
    for line in (line for line in text.splitlines() if line.endswith(r"\\")):
        cells = re.sub(r"\\&", "", line).split("&")
        spanned = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
        assert len(cells) + spanned == 6, line
    return depth == 0 and not opened


def test_a_block_a_model_with_the_tuning_once_and_the_best_in_bold(cell):
    folders = [
        cell("base", algo="base", q=20.0, b=0.9),
        cell("sft", algo="sft", q=30.0, b=2.0),
        cell("dpo", q=30.004, b=1.5),
        cell("full", algo="dpo", mode="full", q=25.0, b=1.1),
    ]
    text = tex(*folders)
    assert balanced(text)
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    same = r"\textbf{30.00} & \textbf{15.50} \\"  # what is alike is bold alike
    assert body == [
        rf"\multicolumn{{2}}{{l}}{{SmolLM2-135M-Instruct}} & 20.00 & \textbf{{0.90}} & {same}",
        rf"Full & CSO-DPO & 25.00 & 1.10 & {same}",
        rf"LoRA & SFT & \textbf{{30.00}} & 2.00 & {same}",
        rf"& CSO-DPO & \textbf{{30.00}} & 1.50 & {same}",
    ]
    assert r"\caption{Table 9: SmolLM2-135M-Instruct.}" in text


def test_seeds_models_and_strange_names_are_set_whole(cell):
    folders = [cell(f"s{seed}", seed=seed, q=q) for seed, q in enumerate((20.0, 21.0, 25.0))]
    folders += [cell("llama", backbone="llama"), cell("odd", backbone="odd", label=r"A_1 & 50% {x} \y $z #~^", algo="base")]
    text = tex(*folders, title="100% of a_b")
    assert balanced(text)
    assert text.count(r"\midrule") == 3
    assert r"\textbf{22.00} $\pm$ 2.65" in text
    assert r"A\_1 \& 50\% \{x\} \textbackslash{}y \$z \#\textasciitilde{}\textasciicircum{}" in text
    assert r"\multicolumn{6}{l}{LLaMA-3.1-8B-Instruct} \\" in text  # its untrained model was not measured
    assert r"100\% of a\_b" in text


def test_the_report_leaves_it_beside_the_others(cell, tmp_path):
    write_report([cell("a")], tmp_path, "demo")
    assert balanced((tmp_path / "report.tex").read_text(encoding="utf-8"))
    assert escape_latex("ä ± –") == r"ä $\pm$ --"
    assert ResultsTable([]).latex("nothing") == ""
