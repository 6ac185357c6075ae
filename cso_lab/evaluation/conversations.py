"""Measures whole conversations: how the seekers left, how the supporter spoke, and how two supporters of the same seekers differ.

Every measure has a value a seeker, and is their mean; its 95% interval is a bootstrap over seekers. docs/conversations.md defines them.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from cso_lab.conversation.records import ENDINGS, RELIEVED, Conversation, counted
from cso_lab.core.words import words
from cso_lab.evaluation.metrics import PERCENT
from cso_lab.evaluation.paired import Difference
from cso_lab.evaluation.score import INTERVAL, RESAMPLES
from cso_lab.evaluation.text_metrics import distinct_shares
from cso_lab.roles.simulated import seeker_state

CRITERIA = ("E", "I", "H", "S")
MEASURES = (
    *("success", "turns_to_success", "turns", "intensity", "area", *CRITERIA),
    *("entropy", "longest_run", "labelled", "stage_fit"),
    *("distinct_1", "distinct_2", "repeated_within", "repeated_across", "harmful"),
)
LOWER_IS_BETTER = ("turns_to_success", "intensity", "area", "longest_run", "repeated_within", "repeated_across", "harmful")
# Those that results by persona and scene show.
_GROUPED = ("success", "turns_to_success", "intensity", "area")
_NONE = {"value": None, "low": None, "high": None}
_SENTENCE = re.compile(r"[^.!?。！？]+")


def measure(conversations: Sequence[Conversation], names: Sequence[str], max_turns: int, seed: int = 0) -> dict:
    """Returns the numbers of conversation_metrics.json, as docs/conversations.md describes them.

    `names`: the strategies. Conversations that are set aside enter no number but their count.
    """
    kept = counted(conversations)
    rows = _rows(kept, names, max_turns)
    return {
        "n": len(kept),
        "set_aside": len(conversations) - len(kept),
        "measures": _means(rows, MEASURES, seed) | _pooled(kept),
        "endings": {ending: sum(each.ending == ending for each in kept) for ending in ENDINGS},
        "curve": _columns([_curve(each, max_turns) for each in kept], seed),
        "by_persona": _by(rows, "persona", seed),
        "by_scene": _by(rows, "scene", seed),
        "strategies": _strategies(kept, names),
        "harm": _harm(kept),
        "seekers": rows,
    }


def paired_differences(ours: Mapping, theirs: Mapping, seed: int = 0) -> tuple[dict[str, Difference], int]:
    """Returns ({measure: ours minus theirs}, number of seekers) of two conversation_metrics.json, over the seekers that both supported.

    Seekers are the same where number, card, persona and intensity at the start are. A measure is compared on the seekers that have a value
    of it on both sides, and left out where none has. Its interval is a paired bootstrap over seekers.
    """
    left, right = ({_identity(row): row for row in metrics["seekers"]} for metrics in (ours, theirs))
    common = [identity for identity in left if identity in right]
    differences = {}
    for name in MEASURES:
        pairs = [(left[identity][name], right[identity][name]) for identity in common]
        values = np.array([own - other for own, other in pairs if None not in (own, other)], dtype=float)
        if len(values):
            mean = _mean(values, seed)
            differences[name] = Difference(mean["value"], mean["low"], mean["high"])
    return differences, len(common)


def _identity(row: Mapping) -> tuple:
    return row["seeker"], row["card"], row["persona"], row["start"]


def _rows(conversations: Sequence[Conversation], names: Sequence[str], max_turns: int) -> list[dict]:
    """Returns one object a conversation: who the seeker is, and its value of every measure, None where it has none."""
    said = [Counter(sentence for reply in _replies(each) for sentence in _sentences(reply)) for each in conversations]
    everywhere = Counter(sentence for one in said for sentence in one)
    return [
        {
            "seeker": each.seeker,
            "card": each.card.id,
            "scene": each.card.scene,
            "persona": each.card.persona,
            "start": each.card.intensity,
            "ending": each.ending,
            **_outcome(each, max_turns),
            **_scores(each),
            **_strategy_use(each, names),
            **_wording(each, own, everywhere),
            "harmful": _share(exchange.harm != () for exchange in each.exchanges if exchange.harm is not None),
        }
        for each, own in zip(conversations, said, strict=True)
    ]


def _outcome(conversation: Conversation, max_turns: int) -> dict:
    relieved, turns = conversation.ending == RELIEVED, len(conversation.exchanges)
    return {
        "success": PERCENT * relieved,
        "turns_to_success": turns if relieved else None,
        "turns": turns,
        "intensity": conversation.intensity,
        "area": float(np.mean(_curve(conversation, max_turns)[1:])),
    }


def _curve(conversation: Conversation, max_turns: int) -> list[float]:
    """Returns the intensity after 0 to `max_turns` supporter turns; who has left keeps the last one."""
    curve = [conversation.card.intensity, *(exchange.intensity for exchange in conversation.exchanges)]
    return curve + curve[-1:] * (max_turns + 1 - len(curve))


def _scores(conversation: Conversation) -> dict:
    scores = [exchange.scores for exchange in conversation.exchanges if exchange.scores is not None]
    return {criterion: float(np.mean([score[criterion] for score in scores])) if scores else None for criterion in CRITERIA}


def _strategy_use(conversation: Conversation, names: Sequence[str]) -> dict:
    used = [exchange.strategy for exchange in conversation.exchanges]
    labelled = [strategy for strategy in used if strategy]
    fits = [_stage_fit(strategy, turn, names) for turn, strategy in enumerate(used) if strategy]
    return {
        "entropy": _entropy(labelled) if labelled else None,
        "longest_run": _longest_run(used) if labelled else None,
        "labelled": _share(strategy is not None for strategy in used),
        "stage_fit": PERCENT * float(np.mean(fits)) if fits else None,
    }


def _stage_fit(strategy: str, turn: int, names: Sequence[str]) -> float:
    """Returns how well a strategy fits the stage of a conversation after `turn` supporter turns, whatever was said: 1 for the best."""
    return seeker_state.relative(seeker_state.fits_at(turn, "", None), names)[strategy]


def _entropy(strategies: Sequence[str]) -> float:
    shares = [count / len(strategies) for count in Counter(strategies).values()]
    return max(0.0, -sum(share * math.log2(share) for share in shares))


def _longest_run(strategies: Sequence[str | None]) -> int:
    longest = run = 0
    last = None
    for strategy in strategies:
        run = run + 1 if strategy is not None and strategy == last else int(strategy is not None)
        longest, last = max(longest, run), strategy
    return longest


def _wording(conversation: Conversation, own: Counter, everywhere: Counter) -> dict:
    """`own`: how often this seeker was told each sentence; `everywhere`: in how many conversations a sentence was said."""
    said = own.total()
    return {
        **_distinct(_replies(conversation)),
        "repeated_within": PERCENT * (said - len(own)) / said if said else None,
        "repeated_across": PERCENT * sum(own[one] for one in own if everywhere[one] > 1) / said if said else None,
    }


def _distinct(replies: Iterable[str]) -> dict[str, float | None]:
    return {f"distinct_{n}": share for n, share in enumerate(distinct_shares(replies), start=1)}


def _pooled(conversations: Sequence[Conversation]) -> dict:
    """Returns distinct-1 and -2 over the replies of all conversations; resampling seekers would only repeat words, so without interval."""
    pooled = _distinct(reply for conversation in conversations for reply in _replies(conversation))
    return {f"{name}_across": _NONE | {"value": value} for name, value in pooled.items()}


def _replies(conversation: Conversation) -> list[str]:
    return [exchange.text for exchange in conversation.exchanges]


def _sentences(text: str) -> list[str]:
    """Returns the sentences of a reply as their words, without those that have none."""
    return [sentence for part in _SENTENCE.findall(text) if (sentence := " ".join(words(part)))]


def _strategies(conversations: Sequence[Conversation], names: Sequence[str]) -> dict:
    used = [[exchange.strategy for exchange in each.exchanges] for each in conversations]
    counts = Counter(strategy for turns in used for strategy in turns if strategy)
    steps = Counter(step for turns in used for step in pairwise(turns))
    return {
        "names": list(names),
        "share": {name: counts[name] / counts.total() if counts else 0.0 for name in names},
        "transitions": [[steps[before, after] for after in names] for before in names],
    }


def _harm(conversations: Sequence[Conversation]) -> dict:
    turns = [
        {
            "seeker": each.seeker,
            "turn": turn,
            "kinds": list(exchange.harm),
            "text": exchange.text,
            "before": each.history[2 * turn].text,
        }
        for each in conversations
        for turn, exchange in enumerate(each.exchanges)
        if exchange.harm
    ]
    kinds = Counter(kind for turn in turns for kind in turn["kinds"])
    unjudged = sum(exchange.harm is None for each in conversations for exchange in each.exchanges)
    return {"count": len(turns), "kinds": dict(kinds), "unjudged": unjudged, "turns": turns}


def _by(rows: Sequence[Mapping], key: str, seed: int) -> dict:
    groups = {name: [row for row in rows if row[key] == name] for name in sorted({row[key] for row in rows})}
    return {name: {"n": len(group), "measures": _means(group, _GROUPED, seed)} for name, group in groups.items()}


def _share(flags: Iterable[bool]) -> float | None:
    values = list(flags)
    return PERCENT * sum(values) / len(values) if values else None


def _means(rows: Sequence[Mapping], names: Sequence[str], seed: int) -> dict[str, dict]:
    return {name: _mean(np.array([row[name] for row in rows], dtype=float), seed) for name in names}


def _columns(rows: Sequence[Sequence[float]], seed: int) -> list[dict]:
    return [_mean(column, seed) for column in np.array(rows, dtype=float).T] if rows else []


@lru_cache(maxsize=16)
def _weights(n: int, seed: int) -> np.ndarray:
    """Returns how often each of `n` seekers is drawn, one row a resample; kept, since all measures of a cell take the same ones."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)


def _mean(values: np.ndarray, seed: int) -> dict:
    """Returns {value, low, high}: the mean of the values that are no NaN, and its interval over seekers drawn with replacement."""
    present = ~np.isnan(values)
    if not present.any():
        return dict(_NONE)
    n = len(values)
    weights = _weights(n, seed)
    sums, sizes = weights @ np.where(present, values, 0.0), weights @ present
    low, high = np.percentile(sums[sizes > 0] / sizes[sizes > 0], INTERVAL)
    return {"value": float(values[present].mean()), "low": float(low), "high": float(high)}
