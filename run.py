"""Compose the configuration and run the stages it names. `python run.py --help` lists every choice."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def main() -> int:
    if {"--help", "-h"} & set(sys.argv[1:]):
        from cso_lab.config.help import usage

        print(usage(ROOT), end="")
        return 0
    from cso_lab.config.command_line import prepared
    from cso_lab.core.errors import heed_debug

    heed_debug(sys.argv[1:])
    # Hand errors on instead of printing several lines about them; `explain` makes one line of what a user can put right.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        sys.argv[1:] = prepared(sys.argv[1:])
        compose_and_run()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        from cso_lab.config.error_messages import explain_or_show

        explanation = explain_or_show(error)
        if explanation is None:
            return 1
        print(f"error: {explanation}", file=sys.stderr)
        return explanation.exit_code
    return 0


def compose_and_run() -> None:
    import warnings

    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig

    from cso_lab.pipeline.cell_names import register_resolvers

    register_resolvers()
    # Hydra goes on without a part of hydra.searchpath that is not there.
    warnings.filterwarnings("error", message="provider=.* is not available")
    failures: list[Exception] = []

    @hydra.main(version_base="1.3", config_path="conf", config_name="config")
    def job(cfg: DictConfig) -> None:
        from cso_lab.core.errors import show_tracebacks
        from cso_lab.pipeline.run_cell import run_cell

        if cfg.debug:
            show_tracebacks()
        multirun = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            run_cell(cfg, Path(HydraConfig.get().runtime.output_dir), multirun)
        except Exception as error:
            if multirun:
                raise
            failures.append(error)  # Hydra would print a line of its own about it

    job()
    if failures:
        raise failures[0]


if __name__ == "__main__":
    sys.exit(main())
