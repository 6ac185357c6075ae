"""The tables of a judging.json, Tables 1, 3 and 6 beside the paper's values: for the report page, and as Markdown for judging.md."""

from collections.abc import Mapping

from cso_lab.core.published import published_study
from cso_lab.core.tables import Table, Value
from cso_lab.judging.items import COMPARISON, CONVERSATIONS, RATING

_OUTCOMES = ("win", "lose", "tie")
_BY = {"models": "judged by language models", "people": "judged by people"}


def judging_tables(results: Mapping) -> list[Table]:
    """Returns the tables of a judging.json, one per panel of judges."""
    return [_table(results, name, panel) for name, panel in (results.get("panels") or {}).items()]


def judging_markdown(results: Mapping) -> str:
    """Returns the text of judging.md."""
    parts = [f"# {results['title']}"]
    for table in judging_tables(results):
        parts += [f"## {table.title}", *(f"> {notice}" for notice in table.notices), table.markdown("; {}"), table.caption]
    return "\n\n".join(parts) + "\n"


def _table(results: Mapping, name: str, panel: Mapping) -> Table:
    simulated = bool(panel.get("simulated"))
    # The paper's values are people's verdicts: models that judge may stand beside them, simulated judges measure something else.
    published = {} if simulated else published_study(str(results["table"]))
    header, rows, caption = _KINDS[panel["kind"]](panel, published)
    by = "by simulated judges" if simulated else _BY.get(name, name)
    notices = [*(results.get("notices") or []), *(panel.get("notices") or [])]
    return Table(
        f"{results['title']}, {by}", header, rows, f"Judges: {', '.join(map(str, panel['judges']))}. {caption}", notices
    )


def _comparison(panel: Mapping, published: Mapping) -> tuple[list, list, str]:
    """Returns (header, rows, caption) of Table 1 or 3, or of pairs of conversations."""
    side, words_of = (
        ("conversation", "Mean words of the supporter") if panel["kind"] == CONVERSATIONS else ("reply", "Mean words")
    )
    first, second = panel["sides"]
    rows = [
        [criterion]
        + [Value.of(row[o], published.get(criterion, {}).get(o), _interval(row["intervals"].get(o), 1)) for o in _OUTCOMES]
        + [Value.of(row["cohen"], published.get(criterion, {}).get("cohen")), Value.of(row["fleiss"])]
        for criterion, row in panel["rows"].items()
    ]
    words, order = panel["length"]["words"] or (float("nan"), float("nan")), panel["order"]
    caption = (
        f"Of {panel['n']} pairs the percent in which {first} is better (win) or worse (lose) than {second}, with 95% intervals. "
        f"{words_of}: {words[0]:.1f} and {words[1]:.1f}."
    )
    if (longer := panel["length"].get("longer_wins")) is not None:
        caption += f" The longer {side} wins {longer:.1f}% of decisive verdicts."
    if order.get("all") is not None:
        caption += f" The {side} shown first wins {order['all']:.1f}% of decisive answers; 50% is no order bias."
    if (contradictions := panel.get("contradictions")) is not None:
        caption += (
            " Every pair was asked in both orders; a judge that did not say the same twice has contradicted itself, which counts as a tie: "
            f"{contradictions:.1f}% of verdicts."
        )
    return ["", *(f"{outcome} %" for outcome in _OUTCOMES), "Cohen", "Fleiss"], rows, caption


def _rating(panel: Mapping, published: Mapping) -> tuple[list, list, str]:
    """Returns (header, rows, caption) of Table 6."""
    groups = panel["groups"]
    rows = [
        [criterion]
        + [
            Value.of(row["means"][g], published.get(criterion, {}).get(g), _interval(row["intervals"].get(g), 2))
            for g in groups
        ]
        + [Value.of(row["cohen"], published.get(criterion, {}).get("cohen")), Value.of(row["fleiss"])]
        for criterion, row in panel["rows"].items()
    ]
    low, high = panel["scale"]
    words = panel["length"]["words"]
    counts = ", ".join(
        f"{group} {panel['n'][group]}" + (f" ({words[group]:.1f} words)" if words[group] else "") for group in groups
    )
    caption = (
        f"Means on a scale of {low} to {high}, with 95% intervals; the paper does not state its scale. "
        f"Replies and their mean length: {counts}."
    )
    if {"satisfaction", "acceptance", "effectiveness", "sensitivity"} <= set(panel["rows"]):
        caption += " Satisfaction is the mean of the three above it."
    return ["", *groups, "Cohen", "Fleiss"], rows, caption


_KINDS = {COMPARISON: _comparison, CONVERSATIONS: _comparison, RATING: _rating}


def _interval(bounds: list | None, digits: int) -> str:
    return f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}" if bounds else ""
