"""`python -m cso_lab.evaluation FILE.jsonl --strategies extes|esconv` scores a predictions file and prints JSON."""

import argparse
import json
import sys
from pathlib import Path

from cso_lab.core.commands import Parser
from cso_lab.core.errors import UserError
from cso_lab.core.strategies import EXTES, SETS, strategy_set
from cso_lab.evaluation.score import evaluate_predictions, load_predictions


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m cso_lab.evaluation", description="Q, B, Q_W and R-L of a predictions file, as JSON.")
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE.jsonl",
        help="one turn a line: gold_strategy, gold_response, strategy (null when unparsed), response; or raw for the last two",
    )
    parser.add_argument("--strategies", default=EXTES.name, metavar="|".join(SETS), help="strategy set (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap intervals (default: %(default)s)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Prints the scores as JSON; returns the exit code. Errors are printed in one line on stderr."""
    try:
        options = _parser().parse_args(arguments)
        strategies = strategy_set(options.strategies)
        scores = evaluate_predictions(load_predictions(options.file, strategies), strategies, seed=options.seed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return UserError.exit_code
    except OSError as error:
        print(f"error: cannot read {options.file}: {error.strerror}", file=sys.stderr)
        return UserError.exit_code
    print(json.dumps(scores, indent=1, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
