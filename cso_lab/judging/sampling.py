"""Which replies are judged: pairs of preference data (Table 1), two runs at the same test turns (Table 3), single replies (Table 6)."""

import random
from collections.abc import Sequence
from pathlib import Path

from cso_lab.errors import UserError
from cso_lab.judging import run_files as runs
from cso_lab.judging.items import COMPARISON, DISPREFERRED, PREFERRED, RATING, SEED, Item, Material


def preference_pairs(run: Path, criteria: Sequence[str], number: int, seed: int) -> Material:
    """`number` pairs of the preference data a run was trained on: preferred against dispreferred."""
    rows, trees = runs.pairs(run), runs.trees(run)
    items = []
    for place, row in _drawn(list(enumerate(rows)), number, seed):
        replies = tuple(runs.reply_of(row[side][0]["content"]) for side in ("chosen", "rejected"))
        items.append(Item.of(place, _situation(trees, row["dialogue"]), runs.history_of(row["prompt"]), replies))
    return Material(
        table="1",
        kind=COMPARISON,
        title="Table 1: preferred against dispreferred replies",
        sides=(PREFERRED, DISPREFERRED),
        criteria=tuple(criteria),
        seed=seed,
        of={"pairs": len(rows)},
        runs=(str(run.resolve()),),
        items=tuple(items),
        notices=(*runs.players(run), *_fewer(len(items), number, "pairs")),
    )


def compared_runs(first: Path, second: Path, criteria: Sequence[str], number: int, seed: int) -> Material:
    """Two runs' replies at `number` of the test turns that both have."""
    ours, theirs = runs.predictions(first), runs.predictions(second)
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise UserError(f"{first} and {second} have no test turn in common: compare runs on the same data")
    other = next((key for key in shared if ours[key]["gold_response"] != theirs[key]["gold_response"]), None)
    if other:
        raise UserError(f"{first} and {second} are on different data: dialogue {other[0]} differs at turn {other[1]}")
    dialogues, items = runs.test_dialogues(first), []
    for dialogue, turn in _drawn(shared, number, seed):
        if dialogue not in dialogues:
            raise UserError(f"{first}: its test dialogues lack {dialogue} of predictions.jsonl: generate again with rerun=true")
        said, pair = dialogues[dialogue], (ours[dialogue, turn], theirs[dialogue, turn])
        replies = tuple(runs.supporter(row["response"], row["strategy"]) for row in pair)
        items.append(Item.of([dialogue, turn], said["description"], tuple(said["turns"][:turn]), replies))
    names, as_paper = runs.names(first, second)
    other = "The paper's Table 3 sets CSO against SFT; this is another comparison, so no published values stand beside it."
    return Material(
        table="3" if as_paper else None,
        kind=COMPARISON,
        title=f"{'Table 3: ' if as_paper else ''}{names[0]} against {names[1]}",
        sides=names,
        criteria=tuple(criteria),
        seed=seed,
        of={"test turns": len(shared)},
        runs=(str(first.resolve()), str(second.resolve())),
        items=tuple(items),
        notices=(*(() if as_paper else (other,)), *_fewer(len(items), number, "test turns"), *_alike(items)),
    )


def rated_replies(run: Path, criteria: Sequence[str], number: int, seed: int) -> Material:
    """`number` replies of the seed dialogues and half as many preferred and dispreferred ones of the preference data each."""
    rows, trees = runs.pairs(run), runs.trees(run)
    # (dialogue, history, reply), each once however many pairs hold it.
    found = {
        SEED: [(tree.id, *said) for tree in trees.values() for said in _gold_replies(tree)],
        PREFERRED: _distinct(rows, "chosen"),
        DISPREFERRED: _distinct(rows, "rejected"),
    }
    wanted = {SEED: number, PREFERRED: number // 2, DISPREFERRED: number - number // 2}
    items, notices = [], runs.players(run)
    for group, replies in found.items():
        drawn = _drawn(replies, wanted[group], f"{seed}/{group}")
        items += [
            Item.of(dialogue, _situation(trees, dialogue), history, (reply,), group) for dialogue, history, reply in drawn
        ]
        if replies:
            notices += _fewer(len(drawn), wanted[group], f"{group} replies")
        else:
            notices.append("The seed dialogues are not among the run's files, so their replies are not rated.")
    return Material(
        table="6",
        kind=RATING,
        title="Table 6: scores of single replies",
        sides=tuple(group for group, replies in found.items() if replies and wanted[group]),
        criteria=tuple(criteria),
        seed=seed,
        of={group: len(replies) for group, replies in found.items()},
        runs=(str(run.resolve()),),
        items=tuple(items),
        notices=tuple(notices),
    )


def _gold_replies(tree) -> list[tuple]:
    """(history, reply) of the gold supporter turns of a tree."""
    gold = (node for node in tree.nodes if node.gold and node.parent and node.supporter)
    return [(node.parent.history(), runs.supporter(node.supporter, node.strategy)) for node in gold]


def _distinct(rows: Sequence[dict], side: str) -> list[tuple]:
    """(dialogue, history, reply) of one side of the pairs, each once."""
    said = ((str(row["dialogue"]), runs.history_of(row["prompt"]), runs.reply_of(row[side][0]["content"])) for row in rows)
    return list(dict.fromkeys(said))


def _drawn(rows: Sequence, number: int, seed: object) -> list:
    """`number` of the rows (or all), drawn by `seed`, in an order that is drawn too."""
    return random.Random(f"judging/{seed}").sample(list(rows), min(number, len(rows)))


def _situation(trees: dict, dialogue: str) -> str:
    return trees[dialogue].description if dialogue in trees else ""


def _alike(items: Sequence[Item]) -> list[str]:
    alike = sum(item.replies[0] == item.replies[1] for item in items)
    return [f"In {alike} of {len(items)} pairs both replies are the same."] if alike else []


def _fewer(found: int, asked: int, what: str) -> list[str]:
    return [f"{found} {what}, for there are no more ({asked} were asked for)."] if found < asked else []
