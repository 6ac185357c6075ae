"""Decides whether runs are sent to a W&B server, without prompting for a key."""

from collections.abc import Sequence

from pydantic import ValidationError

from cso_lab.core.errors import UserError


def resolve_mode(mode: str) -> str:
    """Returns "online" or "offline" for "auto", "online" or "offline"; of "auto" also what WANDB_MODE says.

    Raises UserError if online needs a key and there is none, or if the key cannot be used.
    """
    import wandb
    from wandb.sdk.lib import wbauth

    settings = set_up_wandb().settings
    if mode == "offline":
        return mode
    if mode == "auto" and settings.mode != "online":
        return settings.mode
    try:
        key = wbauth.authenticate_session(host=settings.base_url, source="cso_lab", prompt=False, update_session=False)
    except wandb.errors.Error as error:
        raise UserError(f"the key for W&B cannot be used: {first_line(error)}") from None
    if key is None and mode == "online":
        raise UserError(
            "tracking.mode=online needs a key: set WANDB_API_KEY or run `wandb login`; tracking.mode=auto goes on offline"
        )
    return "offline" if key is None else "online"


def check_names(project: str, tags: Sequence[str], **names: str | None) -> None:
    """Raises UserError if W&B refuses the name of the project, a tag or another of the `names` that a run goes by."""
    import wandb

    for key, value in {"project": project, "run_tags": tuple(tags), **names}.items():
        try:
            wandb.Settings(**{key: value})
        except wandb.errors.UsageError as error:
            raise UserError(f"tracking.{key.removeprefix('run_')}: {first_line(error)}") from None
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise UserError(f"tracking.{key.removeprefix('run_')}: {reason}") from None


def set_up_wandb():
    """Returns wandb's session, set to print warnings and errors alone: the tracker prints one line of its own."""
    import wandb

    return wandb.setup(wandb.Settings(show_info=False))


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or its type where there is none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
