"""`python -m cso_lab.pipeline.serve KEY=VALUE ...`: a backbone on a server of its own, until Ctrl-C, for the role players of a search."""

import signal
from collections.abc import Sequence
from pathlib import Path

from cso_lab.config import CONF
from cso_lab.core.commands import Parser, run
from cso_lab.core.errors import UserError

# A temperature, since servers take from the model's settings whether replies are sampled at all; a request says which temperature.
_FIXED = ("algo=base", "generation.engine=server", "serving=transformers", "generation.temperature=1")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until interrupted. Raises UserError if the configuration or the server cannot be used."""
    parser = Parser(
        prog="python -m cso_lab.pipeline.serve",
        description="Serves a backbone for the role players of a search, until Ctrl-C, and prints what to give the search.",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as backbone=smollm2 serving.port=8000")
    overrides = parser.parse_args(arguments).overrides
    try:
        _serve([*_FIXED, *overrides])
    except KeyboardInterrupt:
        print("the server has ended")
    except Exception as error:
        from cso_lab.config.error_messages import explain

        if known := explain(error):
            raise known from error
        raise


def _serve(overrides: list[str]) -> None:
    from hydra import compose, initialize_config_dir

    from cso_lab.config.cells import starts_server
    from cso_lab.generation.served_folder import SERVER_LOG, serve_checkpoint
    from cso_lab.pipeline.cell_names import register_resolvers
    from cso_lab.pipeline.check import check

    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=overrides)
    check(cfg)
    if not starts_server(cfg):
        raise UserError("nothing is served: leave out generation.engine and serving.command, and give serving=transformers")
    folder = Path(cfg.shared_dir) / "served" / cfg.backbone.name
    folder.mkdir(parents=True, exist_ok=True)
    with serve_checkpoint(cfg, None, folder) as server:
        model = f"openai/{server.model}"
        print(
            f"{cfg.backbone.name} is served, its log is {folder / SERVER_LOG}; end it with Ctrl-C. For a search, give",
            flush=True,
        )
        print(f"roles.api_base={server.api_base} roles.seeker.model={model} roles.supporter.model={model}", flush=True)
        signal.pause()


if __name__ == "__main__":
    run(main)
