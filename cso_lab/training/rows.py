"""Reads the rows of a preference file and renders them as the strings a model is trained on, within the length limits."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_jsonl
from cso_lab.core.strategies import format_reply
from cso_lab.training.chat_format import USER, ChatFormat, Messages

# The fields of a row that hold a response: a pair has the first two, an SFT or KTO row the last.
RESPONSES = ("chosen", "rejected", "completion")
# The file whose rows hold no response: the model writes them in training.
PROMPTS = "prompts"
# Rows that have no file of their own: the pairs, with the chosen strategy on both sides.
PAIRS, WORDINGS = "pairs", "wordings"


@dataclass
class RowCounts:
    """Counts of a preference file's rows: `read` = `used` + `response_too_long` + `prompt_too_long` + `not_chosen`."""

    read: int = 0
    used: int = 0
    # rows that lost some of their oldest turns, among the used ones
    shortened: int = 0
    # left out: a response above max_target_length
    response_too_long: int = 0
    # left out: system prompt and last seeker turn alone above max_prompt_length
    prompt_too_long: int = 0
    # left out by max_rows, without measuring their length
    not_chosen: int = 0


def read_rows(folder: Path, rows: str) -> list[dict]:
    """Returns the rows of `folder`/`rows`.jsonl; for "wordings" the pairs with the chosen strategy on both sides (see `wordings`).

    A pair is {prompt, chosen, rejected}, an SFT row {prompt, completion}, a KTO row {prompt, completion, label} with a bool; prompts and
    responses are lists of {role, content}. A row of prompts.jsonl is {prompt, preferred, values}. Other fields are allowed and not used.

    Raises UserError if there is no row, or with file and line if a row is not a prompt with its response(s).
    """
    if rows == WORDINGS:
        return wordings(read_rows(folder, PAIRS))
    path = Path(folder) / f"{rows}.jsonl"
    records = read_jsonl(path)
    if not records:
        raise UserError(f"{path} holds no row: run the dataset stage on more dialogues, or with a lower preferences threshold")
    for number, row in enumerate(records, start=1):
        fields = [field for field in RESPONSES if field in row]
        complete = fields in (["chosen", "rejected"], ["completion"]) and all(len(row[field]) == 1 for field in fields)
        if rows == PROMPTS:
            complete = isinstance(row.get("preferred"), list) and isinstance(row.get("values"), dict)
        if not complete or not row.get("prompt") or row["prompt"][-1]["role"] != USER:
            raise UserError(
                f"{path}:{number}: expected a prompt that ends with a user turn, and chosen and rejected or completion of one"
                " message each (in prompts.jsonl, preferred and values)"
            )
    return records


def wordings(pairs: Sequence[dict]) -> list[dict]:
    """Returns the pairs in which both replies have the chosen strategy, each once: a preference among wordings alone.

    A pair whose wordings are the same is left out. Raises UserError if no pair is left, or if pairs do not say their strategies.
    """
    rows = {}
    for pair in pairs:
        chosen, rejected = (pair.get(f"{side}_strategy") for side in ("chosen", "rejected"))
        if not chosen or not rejected:
            raise UserError(f"{PAIRS}.jsonl has a pair without its strategies: make it anew by the dataset stage")
        wording = pair["rejected"][0]["content"].removeprefix(format_reply(rejected, ""))
        relabelled = {**pair["rejected"][0], "content": format_reply(chosen, wording)}
        if relabelled != pair["chosen"][0]:
            key = json.dumps([pair["prompt"], pair["chosen"], relabelled])
            rows.setdefault(key, {**pair, "rejected": [relabelled], "rejected_strategy": chosen})
    if not rows:
        raise UserError("no pair has two wordings, so that nothing is preferred once both replies have the chosen strategy")
    return list(rows.values())


def fit_rows(
    rows: Sequence[dict], chat: ChatFormat, max_prompt_length: int, max_target_length: int, max_rows: int | None, seed: int
) -> tuple[list[dict], RowCounts]:
    """Returns the rows as TRL takes them, in a seeded random order, and how many were left out.

    A returned row has plain strings under `prompt` and its response fields, `label` if it had one, and `dialogue`; one without a
    response has the row as it was under `row`. Responses are limited
    to `max_target_length` tokens and prompts, separately, to `max_prompt_length` (appendix F; see `ChatFormat.fit`); a row that does not
    fit is left out and counted. `max_rows` keeps that many rows, chosen by `seed`. The order is random because KTO's trainer reads rows
    in the given order, and a KTO file holds the desirable half of each pair first.

    Raises UserError if no row fits.
    """
    shuffled = random.Random(seed).sample(rows, len(rows))
    chosen = shuffled if max_rows is None else shuffled[:max_rows]
    counts = RowCounts(read=len(rows), not_chosen=len(rows) - len(chosen))
    fitted, prompts = [], _Prompts(chat, max_prompt_length)
    for row in chosen:
        messages, prompt, prompt_ids = prompts[row["prompt"]]
        if messages is None:
            counts.prompt_too_long += 1
            continue
        texts = {field: chat.response(messages, row[field][0], prompt) for field in RESPONSES if field in row}
        if any(chat.response_length(prompt, prompt_ids, text) > max_target_length for text in texts.values()):
            counts.response_too_long += 1
            continue
        counts.shortened += len(messages) < len(row["prompt"])
        label = {"label": row["label"]} if "label" in row else {}
        own = {} if texts else {"row": row}
        fitted.append({"prompt": prompt, **texts, **label, **own, "dialogue": row.get("dialogue", "")})
    counts.used = len(fitted)
    if not fitted:
        raise UserError(
            f"no training row fits: {asdict(counts)}; raise training.max_prompt_length ({max_prompt_length}) or"
            f" training.max_target_length ({max_target_length})"
        )
    return fitted, counts


class _Prompts:
    """Fitted prompts: {messages: (fitted messages or None, their text, its token ids)}. The rows of a turn have the same one."""

    def __init__(self, chat: ChatFormat, max_length: int):
        self._chat, self._max_length = chat, max_length
        self._fitted: dict[tuple, tuple] = {}

    def __getitem__(self, messages: Messages) -> tuple[Messages | None, str, list[int]]:
        key = tuple((message["role"], message["content"]) for message in messages)
        if key not in self._fitted:
            fitted = self._chat.fit(messages, self._max_length)
            text = "" if fitted is None else self._chat.prompt(fitted)
            self._fitted[key] = (fitted, text, self._chat.ids(text))
        return self._fitted[key]
