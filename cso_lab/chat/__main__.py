"""`python -m cso_lab.chat RUN_DIR` opens a conversation with the model of a run: on the terminal or, with --web, on a page."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cso_lab.chat.texts import TEXTS, Texts, load_texts
from cso_lab.core.commands import Parser, run
from cso_lab.core.errors import UserError


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m cso_lab.chat",
        description="Talk to the model of a run. Each reply is shown with its strategy and how likely the model thought each of them. "
        "Nothing of the conversation is saved.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="RUN_DIR", help="a run's folder; also copied from elsewhere, with its checkpoint"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="other values for the run's configuration, such as generation.max_new_tokens=60, backbone.path=FOLDER, shared_dir=FOLDER",
    )
    parser.add_argument("--temperature", metavar="T", help="0: always the likeliest words; above: sampled (default: the run's)")
    parser.add_argument("--seed", metavar="N", help="of the sampling (default: the run's)")
    parser.add_argument(
        "--constrain",
        metavar="format|likelihood|none",
        help="format, likelihood: replies open with a strategy, chosen token by token or as a whole name (default: the run's)",
    )
    parser.add_argument("--web", action="store_true", help="talk on a page at 127.0.0.1, which no other machine can open")
    parser.add_argument(
        "--port", type=int, default=7860, metavar="N", help="of the page; 0: any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--texts",
        type=Path,
        default=TEXTS,
        metavar="FILE",
        help="notice, pointer to human help and its words, translated (YAML)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the conversation until the user leaves. Raises UserError if the arguments or the run cannot be used."""
    options = _parser().parse_intermixed_args(arguments)
    if not 0 <= options.port < 2**16:
        raise UserError(f"--port {options.port}: give a number from 0 to {2**16 - 1}")
    texts = load_texts(options.texts)
    keys = [key for key in ("temperature", "seed", "constrain") if getattr(options, key) is not None]
    overrides = [*options.overrides, *(f"generation.{key}={getattr(options, key)}" for key in keys)]
    try:
        _talk(options, overrides, texts)
    except KeyboardInterrupt:
        print("\nLeft. Nothing of this conversation was saved.", file=sys.stderr)
    except Exception as error:
        from cso_lab.config.error_messages import explain

        if explanation := explain(error):
            raise explanation from error
        raise


def _talk(options: argparse.Namespace, overrides: Sequence[str], texts: Texts) -> None:
    from cso_lab.chat.terminal import Terminal, console, waiting

    terminal = console()
    with waiting(terminal, "loading the model ..."):
        from cso_lab.chat.partner import open_run

        partner = open_run(options.folder, overrides)
        partner.load()
    if options.web:
        from cso_lab.chat.web import serve

        serve(partner, texts, options.port)
    else:
        Terminal(partner, texts, terminal).talk()


if __name__ == "__main__":
    run(main)
