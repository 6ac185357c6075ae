"""Writes predictions.jsonl: a model's reply at every supporter turn that follows a seeker turn, given the gold history (section 5.1)."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from cso_lab.config.cells import starts_server
from cso_lab.core.errors import UserError
from cso_lab.core.records import Dialogue, Prediction, prompt_messages
from cso_lab.core.strategies import StrategySet, parse_reply
from cso_lab.generation.decoding_strategies import Messages, Plain
from cso_lab.llm.reasoning import ReplyText

if TYPE_CHECKING:
    from cso_lab.generation.local import LocalModel
    from cso_lab.generation.served import ServedModel

PREDICTIONS = "predictions.jsonl"
PARTIAL = f".{PREDICTIONS}.partial"


@dataclass(frozen=True)
class _Request:
    """One turn to be predicted, and the first prompt for it."""

    dialogue: Dialogue
    turn: int
    messages: Messages


def generate(
    cfg: DictConfig,
    dialogues: Sequence[Dialogue],
    strategies: StrategySet,
    checkpoint: Path | None,
    out: Path,
    training: Sequence[Dialogue] = (),
    served_identity: object = None,
) -> None:
    """Writes `out`/predictions.jsonl, one Prediction a labelled supporter turn, in the order of the dialogues.

    `checkpoint` is a checkpoint folder of `train.train`; None for the untrained backbone or a model on another's server.
    `cfg.decoding.method` is the decoding strategy, which may use the `training` dialogues. `cfg.generation.constrain` can
    make every reply begin with one of `strategies`. `served_identity` identifies the model that a server holds under its name. Predictions
    and server replies of an interrupted run are kept, and the run is continued.

    Raises UserError if there is no turn to predict, a prompt is too long, or the model cannot be used.
    """
    from hydra.utils import instantiate

    out = Path(out)
    method: Plain = instantiate(cfg.decoding.method)
    method.prepare(training, out)
    with engine(cfg, checkpoint, strategies, out, served_identity) as model:
        requests = turns_to_predict(cfg, dialogues, strategies, method, model)
        _write_replies(requests, method, model, strategies, out / PARTIAL)
    os.replace(out / PARTIAL, out / PREDICTIONS)


@contextmanager
def engine(
    cfg: DictConfig,
    checkpoint: Path | None,
    strategies: StrategySet,
    out: Path,
    served_identity: object,
    conversation_calls: Path | None = None,
) -> "Iterator[LocalModel | ServedModel]":
    """Yields the model of `cfg.generation.engine`, with `batch_size` (None: one batch), `fit` and `seed`, and an Ask.

    The log of a server that the run starts, and the journal of calls, are in `out`. If the model is asked turn by turn in conversations,
    the journal is in `conversation_calls`, and what a local model has computed of a conversation is kept from turn to turn.
    """
    conversing = conversation_calls is not None
    with ExitStack() as stack:
        if cfg.generation.engine == "server":
            from cso_lab.generation.served import ServedModel
            from cso_lab.generation.served_folder import serve_checkpoint

            server = stack.enter_context(serve_checkpoint(cfg, checkpoint, out)) if starts_server(cfg) else None
            model = ServedModel(cfg, conversation_calls or out, served_identity, server, conversing)
        else:
            from cso_lab.generation.local import LocalModel

            model = LocalModel(cfg, checkpoint, strategies, carry=conversing)
        yield stack.enter_context(model)


def turns_to_predict(
    cfg: DictConfig,
    dialogues: Sequence[Dialogue],
    strategies: StrategySet,
    method: Plain,
    model: "LocalModel | ServedModel",
) -> list[_Request]:
    """Returns the turns to be predicted. Raises UserError if there is none or a prompt is too long."""
    turns = (
        (dialogue, turn)
        for dialogue in dialogues
        for turn in dialogue.supporter_turns()
        if dialogue.turns[turn].strategy is not None
    )
    requests, shortened = [], 0
    for dialogue, turn in islice(turns, cfg.generation.max_turns):
        opening = method.opening(prompt_messages(dialogue.turns[:turn], strategies))
        messages = model.fit(opening)
        if messages is None:
            raise UserError(
                f"dialogue {dialogue.id}, turn {turn}: system prompt and last seeker turn alone are longer than"
                f" generation.max_prompt_length={cfg.generation.max_prompt_length}: raise it"
            )
        requests.append(_Request(dialogue, turn, messages))
        shortened += len(messages) < len(opening)
    if shortened:
        print(
            f"{shortened} of {len(requests)} prompts are longer than generation.max_prompt_length={cfg.generation.max_prompt_length}"
            " and lose their oldest turns"
        )
    if not requests:
        raise UserError("no test turn to generate for: data.test_share leaves no dialogue, or generation.max_turns is 0")
    return requests


def _write_replies(
    requests: Sequence[_Request],
    method: Plain,
    model: "LocalModel | ServedModel",
    strategies: StrategySet,
    partial: Path,
) -> None:
    """Appends the predictions that the file `partial` lacks, batch by batch."""
    from tqdm.auto import tqdm

    size = model.batch_size or len(requests)
    done = _already_written(partial, requests, size)
    with (
        partial.open("a", encoding="utf-8") as file,
        tqdm(total=len(requests), initial=done, desc="generate", unit="turn", disable=model.batch_size is None) as bar,
    ):
        for first in range(done, len(requests), size):
            batch = requests[first : first + size]
            model.seed(first)
            replies = method([request.messages for request in batch], model)
            for request, reply in zip(batch, replies, strict=True):
                file.write(json.dumps(_prediction(request, reply, strategies).to_json(), ensure_ascii=False) + "\n")
            file.flush()
            bar.update(len(batch))


def _already_written(partial: Path, requests: Sequence[_Request], batch_size: int) -> int:
    """Returns how many of `requests` an interrupted run has answered in complete batches, and truncates its file to these."""
    # str.splitlines would also split at line separators that JSON does not escape within a string.
    lines = partial.read_text(encoding="utf-8").split("\n") if partial.exists() else []
    complete = 0
    for line, request in zip(lines, requests, strict=False):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if (row["dialogue"], row["turn"]) != (request.dialogue.id, request.turn):
            break
        complete += 1
    # Complete batches only, so that a continued run has the same batches, and samples the same replies, as an uninterrupted one.
    kept = complete if complete == len(requests) else complete - complete % batch_size
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text("".join(f"{line}\n" for line in lines[:kept]), encoding="utf-8")
    return kept


def _prediction(request: _Request, reply: str, strategies: StrategySet) -> Prediction:
    gold = request.dialogue.turns[request.turn]
    # A decoding strategy may return a text of its own, made from several replies.
    text = reply if isinstance(reply, ReplyText) else ReplyText(reply)
    strategy, response = parse_reply(text, strategies)
    return Prediction(request.dialogue.id, request.turn, gold.strategy, gold.text, strategy, response, text.raw, text.cut)
