"""Run folders as the stage converse leaves them, of conversations that tests hold or write down."""

from collections.abc import Sequence
from pathlib import Path

from conversations import PLAN, STRATEGIES, VALIDATE, Scripted, cards, hold, in_turn
from fakes import metrics

from cso_lab.conversation.records import CONVERSATION_METRICS, CONVERSATIONS, Conversation
from cso_lab.core.files import write_json, write_jsonl
from cso_lab.evaluation.conversations import measure

NOTICE = "seekers are simulated: they go by strategies, lengths and words, and are no people"
SCRIPTS = {
    "base": in_turn(PLAN),
    "sft": in_turn("Share Information", VALIDATE),
    "dpo": in_turn(VALIDATE, "Empathetic Statements", PLAN),
}


def write_conversations(
    folder: Path, conversations: Sequence[Conversation], algo: str = "dpo", reference: str | None = None, max_turns=10, **cell
) -> Path:
    """A run folder that holds these conversations and their numbers, and nothing evaluated. `cell`: as for fakes.metrics."""
    described = {
        "cell": metrics(algo=algo, **cell)["cell"] | {"reference": reference, "variant": "", "varied": {}, "start_label": None}
    }
    players = {"seeker": "simulated", "judge": "simulated/judge", "harm": "rules"}
    context = {"data": "sample", "seekers": len(conversations), "max_turns": max_turns, "seed": 0, "threshold": 4}
    described |= measure(conversations, STRATEGIES.names, max_turns)
    described |= {
        "context": context | {"players": players, "notices": [NOTICE]},
        "usage": {"players": {"calls": {"judge": 7}}, "model": None},
    }
    write_jsonl(folder / CONVERSATIONS, (conversation.to_json() for conversation in conversations))
    write_json(folder / CONVERSATION_METRICS, described)
    write_json(
        folder / "run.json",
        {"seconds": {"converse": 1.0}, "commit": "c0ffee", "versions": {}, "overrides": [], "identities": {}},
    )
    write_json(folder / "stages.json", {"converse": str(folder)})
    return folder


def write_conversing_sweep(folder: Path, seekers: int) -> list[Path]:
    """Three models and three references, all with the same seekers."""
    held = {name: hold(folder / f".{name}", Scripted(script), cards(seekers)) for name, script in SCRIPTS.items()}
    models = [write_conversations(folder / algo, conversations, algo) for algo, conversations in held.items()]
    like = {"gold": "sft", "strategist": "dpo", "random": "base"}
    return models + [write_conversations(folder / name, held[algo], "base", name) for name, algo in like.items()]
