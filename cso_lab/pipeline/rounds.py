"""On-policy CSO: the rounds of search and training before the last one, and the model of a round as supporter of the next search."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from cso_lab.config.cells import expanded, is_decoupled, previous_round, rounds_of, trains, trains_here
from cso_lab.config.result_settings import resolved
from cso_lab.core.errors import UserError

if TYPE_CHECKING:
    from cso_lab.pipeline.cell_context import CellContext


def check_rounds(cfg: DictConfig) -> None:
    """Raises UserError if the cell cannot be trained in `rounds`, or its role players need several and it has one."""
    players = f"roles={cfg.roles.name}" if cfg.roles.name == "self" else "roles.on_policy=true"
    if not cfg.roles.on_policy:
        if cfg.rounds > 1:
            raise UserError(
                f"rounds={cfg.rounds} searches again with the cell's own model as supporter: give roles=self with it"
            )
        return
    if not trains(cfg):
        raise UserError(
            f"{players} has the trained model as supporter, and algo={cfg.algorithm.name} trains none: give algo=dpo"
        )
    if cfg.rounds == 1:
        raise UserError(f"{players} has the trained model as supporter from the second round on: give rounds=2 with it")
    reasons = {
        "a model on another's server is not trained here: leave out generation.engine=server": not trains_here(cfg),
        f"data={cfg.data.name} is expanded already, and nothing is searched: give other data": expanded(cfg),
        "each round is searched as a whole: leave out data.shard": cfg.data.shard != "1/1",
        f"algo={cfg.algorithm.name} trains two models, and a round goes on from one: give algo=dpo": is_decoupled(cfg),
        "its fresh replies would not be those of the model: give preferences=escpro": cfg.preferences.negatives is not None,
    }
    if reason := next((reason for reason, holds in reasons.items() if holds), None):
        raise UserError(f"rounds={cfg.rounds}: {reason}")
    for key in ("temperature", "max_tokens"):
        if cfg.roles.supporter[key] is None:
            raise UserError(
                f"roles.supporter.{key}=null leaves it to a server, and {players} runs in this process: give a number"
            )


def rounds(cell: "CellContext") -> list["CellContext"]:
    """Returns the cell as it is in each of its rounds, the first one first and itself last."""
    previous = previous_round(cell.cfg)
    return [*(rounds(cell.with_config(previous)) if previous is not None else ()), cell]


def run_earlier_rounds(cell: "CellContext") -> None:
    """Searches, builds the dataset and trains in every round before the last one; what is finished is not done again."""
    from cso_lab.pipeline.dataset import Dataset
    from cso_lab.pipeline.search import Search
    from cso_lab.pipeline.train import round_checkpoint

    for earlier in rounds(cell)[:-1]:
        print(f"round {rounds_of(earlier.cfg)} of {rounds_of(cell.cfg)}")
        Search().run(earlier)
        Dataset().run(earlier)
        round_checkpoint(earlier)


def supporter_identity(cell: "CellContext") -> list:
    """Returns what identifies the supporter of the cell's search for its key: nothing in a first round; in a later one the training of the
    model that plays it, and what its replies depend on beside that. Raises UserError if the round before has no dataset."""
    previous = previous_round(cell.cfg)
    if previous is None:
        return []
    from cso_lab.pipeline.train import round_key
    from cso_lab.training.machine import resolve_auto

    cfg = resolved(resolve_auto(cell.cfg))
    replying = {key: cfg["generation"][key] for key in ("max_prompt_length", "dtype")} | {"device": cfg["hardware"]["device"]}
    return [round_key(cell.with_config(previous)), replying]


@contextmanager
def own_supporter(cell: "CellContext") -> Iterator[None]:
    """Lets the model of the round before answer as self/supporter within the context; does nothing in a first round."""
    previous = previous_round(cell.cfg)
    if previous is None:
        yield
        return
    from cso_lab.generation.local import LocalModel
    from cso_lab.llm.in_process import OWN_MODEL
    from cso_lab.pipeline.train import round_checkpoint
    from cso_lab.training.machine import resolve_auto

    cfg, player = resolve_auto(cell.cfg), cell.cfg.roles.supporter
    cfg.generation.temperature, cfg.generation.max_new_tokens = player.temperature, player.max_tokens
    with LocalModel(cfg, round_checkpoint(cell.with_config(previous)), cell.strategies, carry=True) as model:
        model.load()

        def reply(conversations: Sequence, seeds: Sequence[int]) -> list[tuple[str, int, int, bool]]:
            asked = [cell.strategies.find(messages[-1]["content"].strip("()")) for messages in conversations]
            replies = model.replies_in([list(messages[:-1]) for messages in conversations], asked, seeds)
            # One utterance is one line, as in every transcript.
            return [(" ".join(text.split()), prompt, tokens, cut) for text, cut, prompt, tokens in replies]

        with OWN_MODEL.serving(reply, model.batch_size):
            yield
