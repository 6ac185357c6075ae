"""Whether runs can go to a W&B server, found out without asking anybody."""

from cso_lab.errors import UserError


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


def set_up():
    """wandb as we use it: it shows warnings and errors, and for the rest one line of ours does."""
    import wandb

    return wandb.setup(wandb.Settings(show_info=False))


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
