"""Names the command that makes the W&B workspace now; it used to be here."""

from cso_lab.core.commands import run
from cso_lab.core.errors import UserError


def main() -> None:
    """Raises UserError with the command to type instead."""
    raise UserError("this command is called python -m cso_lab.tracking.wandb_view now, with the same arguments")


if __name__ == "__main__":
    run(main)
