"""The model of the round before as supporter of the next search: what identifies it, and its replies."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cso_lab.config.result_settings import resolved
from cso_lab.pipeline.cell_context import CellContext


def supporter_identity(cell: CellContext, make: str) -> list:
    """Returns what identifies the supporter of the cell's search for its key: nothing in a first round; in a later one the training of the
    model that plays it, and what its replies depend on beside that.

    Raises UserError, which names the stages (`make`) to run, if the round before has not run.
    """
    if cell.before is None:
        return []
    if cell.supporter is None:
        raise cell.missing(make, f"the search and training of round {cell.before.cfg.rounds} have not run")
    from cso_lab.training.machine import resolve_auto

    cfg = resolved(resolve_auto(cell.cfg))
    replying = {key: cfg["generation"][key] for key in ("max_prompt_length", "dtype")} | {"device": cfg["hardware"]["device"]}
    return [cell.supporter.training_key, replying]


@contextmanager
def own_supporter(cell: CellContext) -> Iterator[None]:
    """Lets the model of the round before answer as self/supporter within the context; does nothing in a first round."""
    if cell.before is None:
        yield
        return
    from cso_lab.generation.local import LocalModel
    from cso_lab.llm.in_process import OWN_MODEL
    from cso_lab.training.machine import resolve_auto

    cfg, player = resolve_auto(cell.cfg), cell.cfg.roles.supporter
    cfg.generation.temperature, cfg.generation.max_new_tokens = player.temperature, player.max_tokens
    with LocalModel(cfg, cell.supporter.checkpoint, cell.strategies, carry=True) as model:
        model.load()

        def reply(conversations: Sequence, seeds: Sequence[int]) -> list[tuple[str, int, int, bool]]:
            asked = [cell.strategies.find(messages[-1]["content"].strip("()")) for messages in conversations]
            replies = model.replies_in([list(messages[:-1]) for messages in conversations], asked, seeds)
            # One utterance is one line, as in every transcript.
            return [(" ".join(text.split()), prompt, tokens, cut) for text, cut, prompt, tokens in replies]

        with OWN_MODEL.serving(reply, model.batch_size):
            yield
