"""A model on a server, asked through the client of the search: API models, and checkpoints that vLLM or its like serves."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from cso_lab.config.cells import is_api
from cso_lab.config.clients import LIMITS
from cso_lab.core.errors import UserError
from cso_lab.core.files import write_json
from cso_lab.core.hashing import digest
from cso_lab.core.records import SUPPORTER
from cso_lab.generation.decoding_strategies import Messages
from cso_lab.llm.config_location import ConfigLocation

USAGE = "usage.json"
_PLACE = ConfigLocation("generation.client", "generation.client.model")
# The journal keeps answers by what they belong to; all belong to this cell.
_CELL = "cell"


class ServedModel:
    """The model `generation.client.model`. Every call is in the journal of the run folder before its reply is used, so that what was
    paid for is not asked again. Use it in a `with`; it leaves usage.json.

    A model that refuses a question for its content, or has no words for it in any attempt, has replied "". Whatever else was no reply is
    an error: the next run asks what is missing, and nothing else.
    """

    def __init__(self, cfg, folder: Path, trained_elsewhere: object = None):
        """`trained_elsewhere`: what stands for the checkpoint on the server, where it was trained before."""
        from cso_lab.llm.client import Client
        from cso_lab.llm.journal import Journal

        client = OmegaConf.to_container(cfg.generation.client, resolve=True)
        self._limits = {key: client[key] for key in LIMITS}
        self._model = {
            "model": client["model"],
            "temperature": cfg.generation.temperature,
            "max_tokens": cfg.generation.max_new_tokens,
        }
        # Answers of one checkpoint are not those of another that goes by the same name.
        self._checkpoint = [trained_elsewhere] if trained_elsewhere else []
        # A greedy model has one answer whatever the seed; null may be any temperature.
        self._seed = cfg.generation.seed if cfg.generation.temperature != 0 else None
        self._fit, self._folds_system = _fitting(cfg)
        self._folder, self._journal = Path(folder), Journal(folder, [_CELL])
        self._without_words: Counter[str] = Counter()  # by reason
        self.batch_size: int | None = None  # all at once: the limits say how many are under way
        Client(**self._limits, place=_PLACE).check({SUPPORTER: client["model"]})

    def __enter__(self) -> "ServedModel":
        self._journal.__enter__()
        return self

    def __exit__(self, *failed) -> None:
        self._journal.__exit__(*failed)
        write_json(
            self._folder / USAGE,
            {
                "model": self._model["model"],
                "usage": self._journal.usage.to_json(),
                "budget": self._limits["budget"],
                "without_words": dict(self._without_words),
                "stopped": str(failed[1]) if failed[1] else None,
            },
        )

    def fit(self, messages: Messages) -> Messages | None:
        """What of a conversation the model is sent; None when it is too long."""
        return self._fit(messages)

    def seed(self, batch: int) -> None:
        """Every question has its own seed."""

    def __call__(self, conversations: Sequence[Messages], free: bool = False) -> list[str]:
        """The replies, in the order of the conversations; `free` makes no difference, since no server is held to a form."""
        from cso_lab.llm.ask_all import ask_all
        from cso_lab.llm.client import Client

        # A client for every round: it belongs to one event loop. What was used is counted by the journal.
        client = Client(**self._limits, journal=self._journal, place=_PLACE)
        model = self._model["model"]
        replies, refused = ask_all(client, self._journal, self._questions(conversations), f"ask {model}", "reply")
        self._without_words.update(refused.values())
        if not any(replies):
            reason = self._without_words.most_common(1)[0][0]
            raise UserError(f"{model} answered none of {len(replies)} questions, most often: {reason}")
        return [reply or "" for reply in replies]

    def _questions(self, conversations: Sequence[Messages]) -> list:
        from cso_lab.llm.client import Question
        from cso_lab.training.chat_format import fold_system

        seen: Counter[str] = Counter()
        questions = []
        for messages in conversations:
            messages = self._fit(messages)
            if messages is None:
                raise UserError("a prompt is longer than generation.max_prompt_length: raise it")
            if self._folds_system:
                messages = fold_system(messages)
            same = digest(messages)
            key = digest([messages, self._model, self._seed, seen[same], *self._checkpoint])
            seen[same] += 1
            questions.append(Question(key, _CELL, SUPPORTER, self._model, messages, int(key[:8], 16) >> 1, str))
        return questions


def _fitting(cfg) -> tuple[Callable[[Messages], Messages | None], bool]:
    """What fits conversations to their length, and whether the system prompt opens the first user turn.

    A backbone that could run here is sent what it would be shown here, so its tokenizer is needed.
    """
    if is_api(cfg):
        return lambda messages: messages, not cfg.backbone.system_role

    from cso_lab.training.backbone import load_tokenizer
    from cso_lab.training.chat_format import ChatFormat

    chat = ChatFormat(load_tokenizer(cfg))
    return lambda messages: chat.fit(messages, cfg.generation.max_prompt_length), chat.folds_system
