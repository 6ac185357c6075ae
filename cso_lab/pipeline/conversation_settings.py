"""What conversations depend on, and the checks of `conversation` before any work starts."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab.config.cells import trains
from cso_lab.config.result_settings import Config, plain
from cso_lab.core.errors import UserError, unknown
from cso_lab.pipeline.generate import Generate

# The roles whose players a reference asks.
_ASKED_BY = {"gold": (), "strategist": ("strategist", "supporter"), "random": ("supporter",)}


def conversation_settings(cfg: Config) -> dict:
    """Returns the values of a resolved configuration that the conversations of its cell depend on."""
    reference = cfg["conversation"]["reference"]
    roles = ("judge", *_ASKED_BY.get(reference, ()))
    values = plain(cfg, "conversation") | {"roles": {role: _asked(cfg["roles"][role]) for role in roles}}
    if "supporter" in roles:
        values["cut_replies"] = cfg["roles"]["cut_replies"]
    model = Generate.settings(cfg)
    # A reference has no model.
    return values | ({"model": model} if reference is None else {"data": model["data"]})


def _asked(player: dict) -> dict:
    """Returns a role's config without `structured`, which changes no question and no result, and `noise`, which is a search's alone."""
    return {key: value for key, value in player.items() if key not in ("structured", "noise")}


def check_conversations(cfg: DictConfig) -> None:
    """Raises UserError if values of `conversation` cannot work together, with the cell, or with what they name."""
    from cso_lab.conversation.judges import HARM_PLACEHOLDERS
    from cso_lab.conversation.seekers import SEEKER_PLACEHOLDERS
    from cso_lab.roles.prompts import check_placeholders

    settings = cfg.conversation
    if settings.weakest > settings.strongest:
        raise UserError(
            f"conversation.weakest={settings.weakest} is above conversation.strongest={settings.strongest}: lower it"
        )
    if settings.weakest <= settings.threshold:
        raise UserError(
            f"conversation.weakest={settings.weakest}: seekers would be relieved before a word is said; give one above"
            f" conversation.threshold={settings.threshold}"
        )
    known = known_personas(cfg)
    for persona in settings.personas:
        if persona not in known:
            raise unknown("persona in conversation.personas", persona, known)
    if settings.reference is not None and trains(cfg):
        raise UserError(
            f"conversation.reference={settings.reference} takes the place of a model: give algo=base, not algo={cfg.algorithm.name}"
        )
    if settings.reference == "gold" and settings.cards is not None:
        raise UserError("conversation.reference=gold replays the test dialogues: leave out conversation.cards")
    for name, placeholders in (("seeker", SEEKER_PLACEHOLDERS), ("harm", HARM_PLACEHOLDERS)):
        for part in ("system", "query"):
            if template := settings[name].get(part):
                check_placeholders(f"conversation.{name}.{part}", template, placeholders)
    if settings.cards is not None:
        from cso_lab.conversation.cards import read_situations

        read_situations(Path(settings.cards), known, settings.threshold)


def check_players(cfg: DictConfig) -> None:
    """Raises UserError if a player of the conversations cannot be asked: its key is missing, its model names no provider, or its price
    is unknown where dollars are capped."""
    from cso_lab.conversation.players import place_of
    from cso_lab.llm.budget import Budget
    from cso_lab.llm.transport import Transport

    caps = OmegaConf.to_container(cfg.roles.budget)
    for role, model in asked_models(cfg).items():
        place = place_of(role)
        Transport(cfg.roles.api_base, cfg.roles.api_key_env, place).check(role, model)
        Budget(caps, place).check_models({role: model})


def known_personas(cfg: DictConfig) -> list[str]:
    """Returns the personas that the configured seeker can have."""
    from cso_lab.roles.simulated.conversation_seeker import PERSONAS

    return list(cfg.conversation.seeker.get("personas") or PERSONAS)


def asked_models(cfg: DictConfig) -> dict[str, str]:
    """Returns the models that are asked beside the cell's own, by role."""
    roles = ("judge", *_ASKED_BY.get(cfg.conversation.reference, ()))
    models = {role: cfg.roles[role].model for role in roles}
    return models | {name: cfg.conversation[name].model for name in ("seeker", "harm") if "model" in cfg.conversation[name]}
