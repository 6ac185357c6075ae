"""Renders the templates, styles and scripts of `reporting/page` into one self-contained page."""

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

PAGE_FILE = "report.html"
_FILES = resources.files("cso_lab.reporting") / "page"


def render(
    template: str,
    scripts: Sequence[str],
    styles: Sequence[str] = (),
    libraries: Sequence[tuple[str, str]] = (),
    **values: object,
) -> str:
    """Returns the page of `page/TEMPLATE.html.j2`, with page.css, `styles` and `scripts` (files of `page`) inlined.

    `libraries` are (text of a library, file of `page` that uses it); `values` are those of the template. The page's security
    policy lets the browser run these scripts alone, whatever the data hold, and load nothing. Only on a page with libraries may
    elements be styled while it is shown, which the charts do.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # trim_blocks would change style and scripts, which the browser compares with their hashes.
    environment = Environment(loader=PackageLoader("cso_lab.reporting", "page"), autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    theme, style = _joined(["theme.js"]), _joined(["page.css", *styles])
    # Libraries are large and come last, so that the texts appear first.
    inlined = [_joined(scripts), *(text for library, user in libraries for text in (library, _joined([user])))]
    return environment.get_template(f"{template}.html.j2").render(
        theme=theme,
        style=style,
        scripts=inlined,
        script_hashes=[_hash(text) for text in (theme, *inlined)],
        style_source="'unsafe-inline'" if libraries else f"'{_hash(style)}'",
        **values,
    )


def write_page(page: str, folder: Path) -> Path:
    """Writes report.html into `folder` atomically and returns its path; characters that UTF-8 lacks become references."""
    partial = folder / f".{PAGE_FILE}.{os.getpid()}.partial"
    partial.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    os.replace(partial, folder / PAGE_FILE)
    return folder / PAGE_FILE


def plotly_js() -> str:
    """Returns the text of plotly.js, as the plotly package ships it."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _joined(names: Sequence[str]) -> str:
    return "".join((_FILES / name).read_text(encoding="utf-8") for name in names)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
