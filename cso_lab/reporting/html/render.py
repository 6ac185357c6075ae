"""Templates, styles and scripts of `reporting/page` -> one self-contained page."""

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

PAGE_FILE = "report.html"
_ROOM = resources.files("cso_lab.reporting") / "page"


def render(
    template: str,
    scripts: Sequence[str],
    styles: Sequence[str] = (),
    libraries: Sequence[tuple[str, str]] = (),
    **values: object,
) -> str:
    """The page of `page/TEMPLATE.html.j2` with page.css, `styles` and `scripts` (files of `page`) in it. `libraries`: (text of a
    library, the file of `page` that uses it).

    The browser is told to run nothing but these scripts, whatever the data hold, and to fetch nothing at all. Only a page with
    libraries may style its elements as it goes: the charts do.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # trim_blocks would change the style and the script, which the browser checks against their hashes.
    environment = Environment(loader=PackageLoader("cso_lab.reporting", "page"), autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    theme, style = _joined(["theme.js"]), _joined(["page.css", *styles])
    # What is read comes before what is only looked at: a library is large.
    written = [_joined(scripts), *(text for library, drawing in libraries for text in (library, _joined([drawing])))]
    return environment.get_template(f"{template}.html.j2").render(
        theme=theme,
        style=style,
        scripts=written,
        script_hashes=[_hash(text) for text in (theme, *written)],
        style_source="'unsafe-inline'" if libraries else f"'{_hash(style)}'",
        **values,
    )


def write_page(page: str, folder: Path) -> Path:
    """Write report.html into `folder`, whole or not at all; returns its path. What UTF-8 cannot hold becomes a reference."""
    partial = folder / f".{PAGE_FILE}.{os.getpid()}.partial"
    partial.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    os.replace(partial, folder / PAGE_FILE)
    return folder / PAGE_FILE


def plotly_js() -> str:
    """The chart library as plotly's own package ships it."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _joined(names: Sequence[str]) -> str:
    return "".join((_ROOM / name).read_text(encoding="utf-8") for name in names)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
