"""Compose the configuration and run the stages it names. `python run.py --help` lists every choice."""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def main() -> int:
    if {"--help", "-h"} & set(sys.argv[1:]):
        from cso_lab.usage import usage

        print(usage(ROOT), end="")
        return 0
    sys.argv[1:] = map(quoted, sys.argv[1:])
    # Hand errors on instead of printing several lines about them; `explain` makes one line of what a user can put right.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        compose_and_run()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        from cso_lab.explain import explain

        known = explain(error)
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        return known.exit_code
    return 0


def quoted(argument: str) -> str:
    """+table='9' of +table=9, which Hydra would read as a number: config names are strings."""
    return re.sub(r"^(\+{0,2}(?:table|figure)=)(\d+)$", r"\1'\2'", argument)


def compose_and_run() -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig

    from cso_lab.naming import register_resolvers

    register_resolvers()
    failures: list[Exception] = []

    @hydra.main(version_base="1.3", config_path="conf", config_name="config")
    def job(cfg: DictConfig) -> None:
        from cso_lab import stages

        multirun = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            stages.run(cfg, Path(HydraConfig.get().runtime.output_dir), multirun)
        except Exception as error:
            if multirun:
                raise
            failures.append(error)  # Hydra would print a line of its own about it

    job()
    if failures:
        raise failures[0]


if __name__ == "__main__":
    sys.exit(main())
