"""Whether runs can go to a W&B server, found out without asking anybody."""

from collections.abc import Sequence

from pydantic import ValidationError

from cso_lab.core.errors import UserError


def settled_mode(mode: str) -> str:
    """`online` or `offline` (or what WANDB_MODE says) for `auto`, `online` or `offline`; a UserError where online needs a key."""
    import wandb
    from wandb.sdk.lib import wbauth

    settings = set_up().settings
    if mode == "offline":
        return mode
    if mode == "auto" and settings.mode != "online":
        return settings.mode
    try:
        found = wbauth.authenticate_session(host=settings.base_url, source="cso_lab", prompt=False, update_session=False)
    except wandb.errors.Error as error:
        raise UserError(f"the key for W&B cannot be used: {first_line(error)}") from None
    if found is None and mode == "online":
        raise UserError(
            "tracking.mode=online needs a key: set WANDB_API_KEY or run `wandb login`; tracking.mode=auto goes on offline"
        )
    return "offline" if found is None else "online"


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


def set_up():
    """wandb as we use it: it shows warnings and errors, and for the rest one line of ours does."""
    import wandb

    return wandb.setup(wandb.Settings(show_info=False))


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
