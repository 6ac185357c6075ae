"""`python -m cso_lab.export RUN OUT` writes a run's model, or the dataset it was trained on, as a folder for servers and the model hub."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cso_lab.core.commands import Parser, run
from cso_lab.core.errors import UserError


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m cso_lab.export",
        description="Write a run's model as a folder for servers and the model hub: weights, tokenizer with chat template, generation "
        "configuration and model card. An adapter is merged into its base.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or the folder of a dataset")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write; it must not exist, or be empty")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="other values for the run's configuration, such as backbone.path=FOLDER, shared_dir=FOLDER, generation.dtype=float32",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--adapter", action="store_true", help="leave the adapter unmerged, for servers that take adapters")
    what.add_argument(
        "--dataset",
        action="store_true",
        help="write the run's preference data instead, as `datasets` and the model hub read them",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the export. Raises UserError if the arguments or the run cannot be used, or `OUT` is not empty."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        print(_export(options))
    except Exception as error:
        from cso_lab.config.error_messages import explain

        if known := explain(error):
            raise known from error
        raise


def _export(options: argparse.Namespace) -> str:
    from cso_lab.export.dataset import export_dataset, is_dataset

    if options.dataset or (is_dataset(options.run) and not options.adapter):
        if options.overrides:
            raise UserError(f"a dataset is exported as it is: leave out {options.overrides[0]}")
        export_dataset(options.run, options.out)
        return f"dataset: {options.out} (README.md is its card)"
    from cso_lab.export.model import export_adapter, export_model

    (export_adapter if options.adapter else export_model)(options.run, options.out, options.overrides)
    return f"{'adapter' if options.adapter else 'model'}: {options.out} (README.md is its card)"


def command() -> None:
    """Runs `main` as a console script."""
    run(main)


if __name__ == "__main__":
    command()
