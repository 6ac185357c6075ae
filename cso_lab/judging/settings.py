"""Loads conf/judging.yaml with the values given on the command line, and checks them."""

from collections.abc import Sequence

from omegaconf import OmegaConf

from cso_lab.config.clients import Limits, Structured
from cso_lab.config.extra_fields import Extra
from cso_lab.config.validation import Count, Flag, Natural, OpenNode, Temperature, check_node
from cso_lab.core.errors import UserError
from cso_lab.judging.items import COMPARISON, CONVERSATIONS, RATING
from cso_lab.judging.prompts import asked_criteria


class Settings(OpenNode):
    """conf/judging.yaml; its criteria, rubric and prompts stand beside these keys."""

    judges: list[str]
    temperature: Temperature | None
    max_tokens: Count | None
    extra: Extra
    structured: Structured
    items: Count
    seed: Natural
    name: str | None
    estimate: Flag
    show_strategies: Flag
    scale: tuple[Natural, Natural]
    client: Limits


def load_settings(overrides: Sequence[str] = ()) -> dict:
    """Returns the settings as plain values; raises UserError with the first key whose value cannot work."""
    from hydra import compose, initialize_config_dir

    from cso_lab.config import CONF
    from cso_lab.config.error_messages import explain

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("judging", overrides=list(overrides))
    except Exception as error:
        if explanation := explain(error):
            raise explanation from error
        raise
    check_node(cfg, "", Settings)
    settings = OmegaConf.to_container(cfg, resolve=True)
    if settings["scale"][0] >= settings["scale"][1]:
        raise UserError(f"scale={settings['scale']}: the lowest score comes first")
    if settings["name"] and ("/" in settings["name"] or settings["name"].startswith(".")):
        raise UserError(f"name={settings['name']}: expected the name of a folder")
    kinds = {"preferences": COMPARISON, "compare": COMPARISON, "rate": RATING, "conversations": CONVERSATIONS}
    for command, kind in kinds.items():
        missing = next(
            (criterion for criterion in asked_criteria(kind, settings[command]) if criterion not in settings["rubric"]), None
        )
        if missing or not settings[command]:
            raise UserError(f"{command}={settings[command]}: every criterion needs a line in rubric")
    return settings
