"""Draws what is judged: preference pairs (Table 1), two runs at the same test turns (Table 3), single replies (Table 6), and two runs'
conversations with the same seekers."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from cso_lab.conversation.records import CONVERSATION_METRICS, Conversation
from cso_lab.core.errors import UserError
from cso_lab.judging import run_files
from cso_lab.judging.items import COMPARISON, CONVERSATIONS, DISPREFERRED, PREFERRED, RATING, SEED, Item, Sample
from cso_lab.search.tree import Tree


def sample_pairs(run: Path, criteria: Sequence[str], number: int, seed: int) -> Sample:
    """Returns `number` pairs of the preference data a run was trained on: preferred against dispreferred (Table 1)."""
    rows, trees = run_files.pairs(run), run_files.trees(run)
    items = []
    for index, row in _draw(list(enumerate(rows)), number, seed):
        replies = tuple(run_files.reply_of(row[side][0]["content"]) for side in ("chosen", "rejected"))
        items.append(Item.of(index, _situation(trees, row["dialogue"]), run_files.history_of(row["prompt"]), replies))
    return Sample(
        table="1",
        kind=COMPARISON,
        title="Table 1: preferred against dispreferred replies",
        sides=(PREFERRED, DISPREFERRED),
        criteria=tuple(criteria),
        seed=seed,
        of={"pairs": len(rows)},
        runs=(str(run.resolve()),),
        items=tuple(items),
        notices=(*run_files.search_notices(run), *_shortfall(len(items), number, "pairs")),
    )


def sample_test_turns(first: Path, second: Path, criteria: Sequence[str], number: int, seed: int) -> Sample:
    """Returns two runs' replies at `number` of the test turns that both have (Table 3).

    Raises UserError if they have no test turn in common, or are on different data.
    """
    first_rows, second_rows = run_files.predictions(first), run_files.predictions(second)
    shared = [key for key in first_rows if key in second_rows]
    if not shared:
        raise UserError(f"{first} and {second} have no test turn in common: compare runs on the same data")
    differing = next((key for key in shared if first_rows[key]["gold_response"] != second_rows[key]["gold_response"]), None)
    if differing:
        dialogue, turn = differing
        raise UserError(f"{first} and {second} are on different data: dialogue {dialogue} differs at turn {turn}")
    dialogues, items = run_files.test_dialogues(first), []
    for dialogue, turn in _draw(shared, number, seed):
        if dialogue not in dialogues:
            raise UserError(f"{first}: its test dialogues lack {dialogue} of predictions.jsonl: generate again with rerun=true")
        spoken, pair = dialogues[dialogue], (first_rows[dialogue, turn], second_rows[dialogue, turn])
        replies = tuple(run_files.supporter_turn(row["response"], row["strategy"]) for row in pair)
        items.append(Item.of([dialogue, turn], spoken["description"], tuple(spoken["turns"][:turn]), replies))
    names, as_paper = run_files.run_names(first, second)
    not_published = (
        "The paper's Table 3 sets CSO against SFT; this is another comparison, so no published values stand beside it."
    )
    return Sample(
        table="3" if as_paper else None,
        kind=COMPARISON,
        title=f"{'Table 3: ' if as_paper else ''}{names[0]} against {names[1]}",
        sides=names,
        criteria=tuple(criteria),
        seed=seed,
        of={"test turns": len(shared)},
        runs=(str(first.resolve()), str(second.resolve())),
        items=tuple(items),
        notices=(
            *(() if as_paper else (not_published,)),
            *_shortfall(len(items), number, "test turns"),
            *_identical(items, "replies"),
        ),
    )


def sample_replies(run: Path, criteria: Sequence[str], number: int, seed: int) -> Sample:
    """Returns `number` replies of the seed dialogues and, half each, `number` preferred and dispreferred ones (Table 6)."""
    rows, trees = run_files.pairs(run), run_files.trees(run)
    # (dialogue, history, reply), each once however many pairs hold it.
    replies_of = {
        SEED: [(tree.id, *reply) for tree in trees.values() for reply in _gold_replies(tree)],
        PREFERRED: _distinct(rows, "chosen"),
        DISPREFERRED: _distinct(rows, "rejected"),
    }
    sizes = {SEED: number, PREFERRED: number // 2, DISPREFERRED: number - number // 2}
    items, notices = [], run_files.search_notices(run)
    for group, replies in replies_of.items():
        drawn = _draw(replies, sizes[group], f"{seed}/{group}")
        items += [
            Item.of(dialogue, _situation(trees, dialogue), history, (reply,), group) for dialogue, history, reply in drawn
        ]
        if replies:
            notices += _shortfall(len(drawn), sizes[group], f"{group} replies")
        else:
            notices.append("The seed dialogues are not among the run's files, so their replies are not rated.")
    return Sample(
        table="6",
        kind=RATING,
        title="Table 6: scores of single replies",
        sides=tuple(group for group, replies in replies_of.items() if replies and sizes[group]),
        criteria=tuple(criteria),
        seed=seed,
        of={group: len(replies) for group, replies in replies_of.items()},
        runs=(str(run.resolve()),),
        items=tuple(items),
        notices=tuple(notices),
    )


def sample_conversations(first: Path, second: Path, criteria: Sequence[str], number: int, seed: int) -> Sample:
    """Returns two runs' conversations with `number` of the seekers that both have talked with.

    Seekers that only one run has, or whose conversation was set aside in either, are left out and counted. Raises UserError where the
    seekers are not the same, or none is left.
    """
    ours, theirs = run_files.conversations(first), run_files.conversations(second)
    pairs = [(ours[seeker], theirs[seeker]) for seeker in ours if seeker in theirs]
    _check_same_seekers(first, second, pairs)
    usable = [pair for pair in pairs if not any(conversation.set_aside for conversation in pair)]
    if not usable:
        raise UserError(
            f"{first} and {second} have no conversations with the same seeker, set aside in neither: nothing to judge"
        )
    items = []
    for pair in _draw(usable, number, seed):
        situation = " ".join(pair[0].card.description.split())
        turns = tuple(run_files.conversation_turns(conversation) for conversation in pair)
        items.append(Item.of_conversations(pair[0].seeker, situation, turns))
    names, _ = run_files.run_names(first, second, CONVERSATION_METRICS)
    left_out = {
        "only one of the runs has them": len(set(ours) ^ set(theirs)),
        "a conversation of theirs was set aside": len(pairs) - len(usable),
    }
    return Sample(
        table=None,
        kind=CONVERSATIONS,
        title=f"Conversations: {names[0]} against {names[1]}",
        sides=names,
        criteria=tuple(criteria),
        seed=seed,
        of={"seekers": len(usable)},
        runs=(str(first.resolve()), str(second.resolve())),
        items=tuple(items),
        notices=(
            *(f"Seekers left out because {reason}: {count}." for reason, count in left_out.items() if count),
            *_simulated_seekers(first),
            *_shortfall(len(items), number, "seekers"),
            *_identical(items, "conversations"),
        ),
    )


def _check_same_seekers(first: Path, second: Path, pairs: Sequence[tuple[Conversation, Conversation]]) -> None:
    """Raises UserError where two runs did not set their seekers alike, or where a seeker of one number has two cards."""
    ours, theirs = run_files.seeker_settings(first), run_files.seeker_settings(second)
    for key in (key for key in ours if key in theirs and ours[key] != theirs[key]):
        raise UserError(
            f"{first} and {second} have different seekers: {key} is {ours[key]} and {theirs[key]}: compare runs that set it alike"
        )
    for one, other in pairs:
        if one.card != other.card:
            raise UserError(
                f"{first} and {second} have different seekers: seeker {one.seeker} has the cards {one.card.id} ({one.card.persona}) and "
                f"{other.card.id} ({other.card.persona}): compare runs on the same data and conversation.cards"
            )


def _gold_replies(tree: Tree) -> list[tuple]:
    """Returns (history, reply) of the gold supporter turns of a tree."""
    gold = (node for node in tree.nodes if node.gold and node.parent and node.supporter)
    return [(node.parent.history(), run_files.supporter_turn(node.supporter, node.strategy)) for node in gold]


def _distinct(rows: Sequence[dict], side: str) -> list[tuple]:
    """Returns (dialogue, history, reply) of one side of the pairs, without duplicates."""
    replies = (
        (str(row["dialogue"]), run_files.history_of(row["prompt"]), run_files.reply_of(row[side][0]["content"])) for row in rows
    )
    return list(dict.fromkeys(replies))


def _draw(rows: Sequence, number: int, seed: object) -> list:
    """Returns `number` of the rows, or all if there are fewer, in a random order that follows from `seed`."""
    return random.Random(f"judging/{seed}").sample(list(rows), min(number, len(rows)))


def _situation(trees: Mapping[str, Tree], dialogue: str) -> str:
    return trees[dialogue].description if dialogue in trees else ""


def _identical(items: Sequence[Item], what: str) -> list[str]:
    alike = sum(item.sides[0] == item.sides[1] for item in items)
    return [f"In {alike} of {len(items)} pairs both {what} are the same."] if alike else []


def _shortfall(count: int, size: int, name: str) -> list[str]:
    """Returns a notice if fewer replies were drawn than were asked for."""
    return [f"{count} {name}, for there are no more ({size} were asked for)."] if count < size else []


def _simulated_seekers(run: Path) -> list[str]:
    simulated = run_files.seeker_settings(run).get("conversation.seeker") == "simulated"
    return ["The seekers are simulated and are no people."] if simulated else []
