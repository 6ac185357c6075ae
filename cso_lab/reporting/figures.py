"""What the figures drawn by matplotlib share: colours with markers, and files that are the same for the same numbers."""

from pathlib import Path

FORMATS = ("png", "svg")
# Okabe and Ito's colours, which the colour-blind tell apart, with grey for their yellow, which no white page shows; a marker each for print
# in grey.
STYLES = [
    *(("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P")),
    *(("#000000", "X"), ("#7F7F7F", "*")),
]


def save(figure, out: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg into `out`; the text of the SVG can be searched."""
    from matplotlib import rc_context

    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.{suffix}" for suffix in FORMATS]
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        for path in paths:
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths
