"""The converse stage: the cell's model, or a reference, supports many seekers, each for a whole conversation."""

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab.config.cells import is_api, starts_server, trains_here, weights_here
from cso_lab.config.result_settings import Config
from cso_lab.conversation.records import CONVERSATION_METRICS, CONVERSATIONS
from cso_lab.core.files import read_json, write_json, write_jsonl
from cso_lab.core.hashing import file_digest
from cso_lab.core.records import Dialogue
from cso_lab.generation.served import USAGE
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.conversation_settings import asked_models, conversation_settings, known_personas
from cso_lab.pipeline.generate import no_dialogue, served_identity
from cso_lab.pipeline.metadata import cell_metadata, context
from cso_lab.pipeline.stage import Result, Stage
from cso_lab.pipeline.train import CHECKPOINT, trained_folder

PARTIAL = f".{CONVERSATIONS}.partial"
CALLS = "conversation_calls"


class Converse(Result, Stage):
    """Leaves conversations.jsonl and conversation_metrics.json in the run folder, and the journals of calls below conversation_calls/.
    Needs the checkpoint of a cell that trains here; a reference needs none.

    `version` counts the simulated seeker, prompts, decoding and parsing, the judges and the measures.
    """

    name, version, of_reference = "converse", 1, True

    @staticmethod
    def settings(cfg: Config) -> dict:
        return conversation_settings(cfg)

    @classmethod
    def key(cls, cfg: DictConfig, *inputs: object) -> str:
        """See `Generate.key`; a reference depends on no machine."""
        from cso_lab.training.machine import resolve_auto

        here = weights_here(cfg) and cfg.conversation.reference is None
        return super().key(resolve_auto(cfg) if here else cfg, *inputs)

    def run(self, cell: CellContext) -> None:
        checkpoint = _checkpoint(cell)
        key = _key(cell)
        if cell.cache.find_own("converse", key, CONVERSATION_METRICS):
            return
        # With `rerun` every player is asked anew; a run that was killed while it asked goes on.
        replies = (CALLS,) if cell.cfg.rerun else ()
        with cell.cache.compute_own("converse", key, (PARTIAL,), discard=(CONVERSATIONS, CONVERSATION_METRICS, *replies)):
            _converse(cell, checkpoint)
            (cell.folder / PARTIAL).unlink(missing_ok=True)


def has_conversed(cell: CellContext) -> bool:
    """Whether the run folder holds the cell's conversations."""
    return cell.cache.has_own("converse", _key(cell), CONVERSATION_METRICS)


def print_conversation_estimate(cell: CellContext) -> None:
    """Print what the conversations would take; run nothing."""
    from cso_lab.conversation.estimate import estimate

    _, measured = cell.measured_dialogues()
    settings, roles = (OmegaConf.to_container(cell.cfg[node], resolve=True) for node in ("conversation", "roles"))
    generation = OmegaConf.to_container(cell.cfg.generation, resolve=True)
    if starts_server(cell.cfg):
        generation["engine"] = "local"  # nobody is paid, as for a model in this process
    print(estimate(_cards(cell, measured), settings, roles, generation, cell.strategies))


def _checkpoint(cell: CellContext) -> Path | None:
    """Returns the cell's checkpoint; None where nothing is trained here. Raises UserError if it is missing."""
    if not trains_here(cell.cfg) or cell.cfg.conversation.reference is not None:
        return None
    folder = trained_folder(cell)
    if folder is None:
        raise cell.missing("train", f"no checkpoint in {cell.folder}")
    return folder / CHECKPOINT


def _key(cell: CellContext) -> str:
    cfg = cell.cfg
    cards = cfg.conversation.cards and file_digest(Path(cfg.conversation.cards))
    if cfg.conversation.reference is not None:
        return Converse.key(cfg, cell.data_digest(), cards)
    trained = cell.cache.record.keys.get("train") if trains_here(cfg) else None
    weights = None if is_api(cfg) else cell.backbone_digest()
    return Converse.key(cfg, cell.data_digest(), cards, weights, trained)


def _cards(cell: CellContext, measured: Sequence[Dialogue]) -> list:
    from cso_lab.conversation.cards import draw_cards, of_dialogues, read_situations

    settings = OmegaConf.to_container(cell.cfg.conversation, resolve=True)
    if settings["cards"] is not None:
        situations = read_situations(Path(settings["cards"]), known_personas(cell.cfg), settings["threshold"])
    else:
        situations = of_dialogues(measured)
    if not situations:
        raise no_dialogue(cell.cfg, "to draw seekers from")
    return draw_cards(settings, situations)


def _converse(cell: CellContext, checkpoint: Path | None) -> None:
    from cso_lab.conversation.converse import converse
    from cso_lab.conversation.judges import find_harm, score
    from cso_lab.conversation.players import Players
    from cso_lab.conversation.seekers import AskedSeekers, SimulatedSeekers
    from cso_lab.conversation.supporters import model_supporter, reference_supporter
    from cso_lab.evaluation.conversations import measure

    cfg, strategies = cell.cfg, cell.strategies
    settings, roles = (OmegaConf.to_container(cfg[node], resolve=True) for node in ("conversation", "roles"))
    train, measured = cell.measured_dialogues()
    cards, calls = _cards(cell, measured), cell.folder / CALLS
    with ExitStack() as stack:
        players = stack.enter_context(Players(roles, calls / "players", range(1, len(cards) + 1), strategies, settings["seed"]))
        threshold = settings["threshold"]
        if "model" in settings["seeker"]:
            seekers = AskedSeekers(settings["seeker"], players, threshold)
        else:
            seekers = SimulatedSeekers(threshold, strategies.names, settings["seed"])
        if settings["reference"] is not None:
            reference = reference_supporter(settings["reference"], roles, players, measured, strategies, settings["seed"])
            supporting = nullcontext(reference)
        else:
            identity = served_identity(cell)
            supporting = model_supporter(cfg, checkpoint, strategies, train, cell.folder, calls / "model", identity)
        with supporting as supporter:
            held = converse(cards, supporter, seekers, strategies, settings["max_turns"], cell.folder / PARTIAL)
        held = score(held, roles["judge"], players)
        held = find_harm(held, settings["harm"], players)
        usage = players.usage
    write_jsonl(cell.folder / CONVERSATIONS, (conversation.to_json() for conversation in held))
    described = {
        "cell": cell_metadata(cfg) | {"reference": settings["reference"]},
        **measure(held, strategies.names, settings["max_turns"]),
        "context": _context(cell),
        "usage": {"players": usage, "model": _model_usage(calls / "model")},
    }
    write_json(cell.folder / CONVERSATION_METRICS, described)


def _model_usage(folder: Path) -> dict | None:
    """Returns what a model on a server has used; None where the model ran here."""
    file = folder / USAGE
    return read_json(file)["usage"] if file.exists() else None


def _context(cell: CellContext) -> dict:
    """Returns what stands behind the numbers: data and model, players and judges, and what must be said of them."""
    cfg = cell.cfg
    settings = cfg.conversation
    behind = {"data": cfg.data.name} if settings.reference is not None else context(cfg, cell.cache.record)
    models = asked_models(cfg)
    players = {"seeker": models.get("seeker", settings.seeker.name), "judge": models["judge"]}
    players["harm"] = models.get("harm", settings.harm.name)
    players |= {role: model for role, model in models.items() if role not in players}
    said = {
        "seekers are simulated: they go by strategies, lengths and words, and are no people": "model" not in settings.seeker,
        "the judge is simulated: it goes by strategies": players["judge"].startswith("simulated/"),
        "harm is found by short word lists: what they miss is not harmless": "model" not in settings.harm,
    }
    shown = ("seekers", "max_turns", "seed", "threshold")
    return behind | {
        **{key: settings[key] for key in shown},
        "players": players,
        "notices": [notice for notice, true in said.items() if true],
    }
