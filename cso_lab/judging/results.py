"""Answers counted: who wins by each criterion or how it is scored, with intervals, agreement, lengths and the order bias."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from cso_lab.judging.agreement import Verdicts, cohen, fleiss, interval
from cso_lab.judging.items import BOTH, COMPARISON, DISPREFERRED, PREFERRED, Material
from cso_lab.judging.llm_judges import Answer
from cso_lab.judging.prompts import PARTS, TIE, A, asked

WIN, LOSE = "win", "lose"
OUTCOMES = (WIN, LOSE, TIE)


def panel(material: Material, answers: Sequence[Answer], judges: Sequence[str], orders: int, **more: object) -> dict:
    """One panel of judging.json: the table's numbers by what these judges said. `orders`: in how many a pair was asked."""
    count = _comparison if material.kind == COMPARISON else _rating
    return {"kind": material.kind, "judges": list(judges), **count(material, answers, judges, orders), **more}


def verdicts(answers: Iterable[Answer], criterion: str, orders: int) -> tuple[dict[str, dict[str, str]], int]:
    """({judge: {item: "win", "lose" or "tie" for the item's first reply}}, how many of these were contradictions).

    Asked in both orders, a judge that does not say the same twice has contradicted itself: a tie. With an order unanswered there is no
    verdict.
    """
    said: dict[tuple[str, str], list[str]] = defaultdict(list)
    for answer in answers:
        said[answer.judge, answer.item].append(outcome(answer, criterion))
    found: dict[str, dict[str, str]] = defaultdict(dict)
    contradictions = 0
    for (judge, item), outcomes in said.items():
        if len(outcomes) == orders:
            contradictions += len(set(outcomes)) > 1
            found[judge][item] = outcomes[0] if len(set(outcomes)) == 1 else TIE
    return dict(found), contradictions


def outcome(answer: Answer, criterion: str) -> str:
    """What a single answer means for the item's first reply."""
    value = answer.values[criterion]
    return TIE if value == TIE else WIN if (value == A) == (answer.first == 0) else LOSE


def order_bias(answers: Iterable[Answer]) -> dict[str, float | None]:
    """{judge, and "all": percent of the decisive answers, over all criteria, that are for the reply shown first}."""
    answers = list(answers)
    decisive = {"all": [value for answer in answers for value in answer.values.values() if value != TIE]}
    for judge in dict.fromkeys(answer.judge for answer in answers):
        decisive[judge] = [v for answer in answers if answer.judge == judge for v in answer.values.values() if v != TIE]
    return {name: 100 * fmean(value == A for value in values) if values else None for name, values in decisive.items()}


def _comparison(material: Material, answers: Sequence[Answer], judges: Sequence[str], orders: int) -> dict:
    rows, judged, contradictions, all_verdicts = {}, set(), 0, 0
    longer = []
    words = {item.id: [len(reply.text.split()) for reply in item.replies] for item in material.items}
    for criterion in material.criteria:
        found, contradicted = verdicts(answers, criterion, orders)
        contradictions += contradicted
        all_verdicts += sum(map(len, found.values()))
        items = [item.id for item in material.items if any(item.id in by_item for by_item in found.values())]
        judged |= set(items)
        # Of an item the share of its judges; where each judged every item this is the share of all verdicts, as in the paper.
        shares = {o: [fmean(v[i] == o for v in found.values() if i in v) for i in items] for o in OUTCOMES}
        rows[criterion] = {
            **{o: 100 * fmean(shares[o]) if items else None for o in OUTCOMES},
            "intervals": {
                o: bounds and [100 * b for b in bounds] for o in OUTCOMES if (bounds := _bounds(shares[o], material))
            },
            **_agreement(found),
        }
        for by_item in found.values():
            for item, verdict in by_item.items():
                first, second = words[item]
                if verdict != TIE and first != second:
                    longer.append((verdict == WIN) == (first > second))
    kept = [words[item] for item in words if item in judged]
    return {
        "sides": list(material.sides),
        "rows": rows,
        "n": len(judged),
        "length": {
            "words": [fmean(lengths) for lengths in zip(*kept, strict=True)],
            "longer_wins": 100 * fmean(longer) if longer else None,
        },
        "order": order_bias(answers),
        "contradictions": 100 * contradictions / all_verdicts if orders > 1 and all_verdicts else None,
    }


def _rating(material: Material, answers: Sequence[Answer], judges: Sequence[str], orders: int) -> dict:
    scores: dict[str, dict[str, dict[str, float]]] = {criterion: defaultdict(dict) for criterion in material.criteria}
    derived = set(material.criteria) - set(asked(material.kind, material.criteria))
    for answer in answers:
        for criterion in material.criteria:
            values = [answer.values[part] for part in PARTS] if criterion in derived else [answer.values[criterion]]
            scores[criterion][answer.judge][answer.item] = fmean(values)
    members = {group: [item for item in material.items if item.group in _parts(group)] for group in material.groups}
    rows = {}
    for criterion, found in scores.items():
        means = {
            group: [fmean(v[item.id] for v in found.values() if item.id in v) for item in items if _judged(found, item.id)]
            for group, items in members.items()
        }
        rows[criterion] = {
            "means": {group: fmean(values) if values else None for group, values in means.items()},
            "intervals": {group: bounds for group, values in means.items() if (bounds := _bounds(values, material))},
            **_agreement(found),
        }
    judged = {answer.item for answer in answers}
    words = {g: [len(i.replies[0].text.split()) for i in items if i.id in judged] for g, items in members.items()}
    return {
        "groups": list(material.groups),
        "rows": rows,
        "n": {group: len(values) for group, values in words.items()},
        "length": {"words": {group: fmean(values) if values else None for group, values in words.items()}},
        "order": {},
    }


def _parts(group: str) -> tuple[str, ...]:
    return (PREFERRED, DISPREFERRED) if group == BOTH else (group,)


def _judged(found: Verdicts, item: str) -> bool:
    return any(item in by_item for by_item in found.values())


def _agreement(found: Mapping) -> dict[str, float | None]:
    return {"cohen": cohen(found), "fleiss": fleiss(found)}


def _bounds(values: Sequence[float], material: Material) -> list[float] | None:
    return interval(values, material.seed)
