"""On-policy CSO: the rounds of search and training before the last one, each of which makes the supporter of the next search."""

from omegaconf import DictConfig

from cso_lab.config.cells import expanded, is_decoupled, trains, trains_here
from cso_lab.core.errors import UserError
from cso_lab.pipeline.cell_context import CellContext, Supporter
from cso_lab.pipeline.dataset import Dataset
from cso_lab.pipeline.search import Search
from cso_lab.pipeline.train import round_checkpoint, round_key


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


def find_supporters(cell: CellContext) -> None:
    """Notes in the cell of each later round which training makes its supporter, as far as the rounds before have datasets."""
    for later in cell.rounds()[1:]:
        try:
            later.supporter = Supporter(round_key(later.before))
        except UserError:  # what the round before leaves is still to come; a stage that needs it says so
            return


def run_earlier_rounds(cell: CellContext) -> None:
    """Searches, builds the dataset and trains in every round before the last one; what is finished is not done again."""
    for later in cell.rounds()[1:]:
        print(f"round {later.before.cfg.rounds} of {cell.cfg.rounds}")
        Search().run(later.before)
        Dataset().run(later.before)
        checkpoint = round_checkpoint(later.before)
        later.supporter = Supporter(round_key(later.before), checkpoint)
