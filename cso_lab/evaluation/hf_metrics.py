"""The metrics as local `evaluate.Metric` classes, for `evaluate.combine([StrategyF1(), PreferenceBias(), RougeL()])`.

`combine` passes the same predictions and references to all metrics, so each takes replies of the form "(Strategy) text" and uses the part
it needs. A prediction that does not begin with a known strategy is unparsed. The name of a strategy alone is a reply too.
"""

from collections.abc import Sequence

import datasets
import evaluate

from cso_lab.core.strategies import EXTES, StrategySet, parse_reply, strategy_set
from cso_lab.evaluation import metrics
from cso_lab.evaluation.score import gold_strategy

REPLIES = 'predictions, references: strings "(Strategy) text"; strategies: the name of a strategy set.'


class _ReplyMetric(evaluate.Metric):
    """Base of the metrics, on replies with strategies of one set; `options` are those of `evaluate.Metric`."""

    def __init__(self, strategies: str = EXTES.name, *, keep_in_memory: bool = True, **options):
        self.strategies = strategy_set(strategies)
        super().__init__(config_name=strategies, keep_in_memory=keep_in_memory, **options)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            inputs_description=REPLIES,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _gold(self, references: Sequence[str]) -> list[str]:
        return [
            gold_strategy(_label(reply, self.strategies) or reply, self.strategies, f"reference {n}")
            for n, reply in enumerate(references, start=1)
        ]

    def _predicted(self, predictions: Sequence[str]) -> list[str | None]:
        return [_label(reply, self.strategies) for reply in predictions]


class StrategyF1(_ReplyMetric):
    """Q and Q_W in percent: macro and weighted F1 of the strategies (`metrics.strategy_scores`)."""

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        scores = metrics.strategy_scores(self._gold(references), self._predicted(predictions), self.strategies.names)
        return {"Q": scores["Q"], "Q_W": scores["Q_W"]}


class PreferenceBias(_ReplyMetric):
    """B: the spread of Bradley-Terry preferences over the strategies (`metrics.preference_bias`)."""

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        counts = metrics.confusion(self._gold(references), self._predicted(predictions), self.strategies.names)
        return {"B": float(metrics.preference_bias(metrics.preference(counts[:, :-1])))}


class RougeL(_ReplyMetric):
    """R-L in percent: mean ROUGE-L of the text after the strategy label (`metrics.rouge_l`)."""

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        gold, predicted = ([parse_reply(reply, self.strategies)[1] for reply in side] for side in (references, predictions))
        return {"R-L": metrics.rouge_l(gold, predicted)}


def _label(reply: str, strategies: StrategySet) -> str | None:
    return parse_reply(reply, strategies)[0] or strategies.find(reply)
