"""A model on a server, called through the LLM client: API models, and checkpoints served by vLLM or a similar server."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from cso_lab.config.cells import is_api
from cso_lab.config.clients import LIMITS
from cso_lab.core.errors import UserError
from cso_lab.core.files import write_json
from cso_lab.core.hashing import digest
from cso_lab.core.records import SUPPORTER
from cso_lab.generation.decoding_strategies import Messages
from cso_lab.llm.config_location import ConfigLocation

if TYPE_CHECKING:
    from cso_lab.llm.client import Question

USAGE = "usage.json"
_LOCATION = ConfigLocation("generation.client", "generation.client.model")
# The journal groups replies, elsewhere by dialogue; here all are of one group.
_GROUP = "cell"


class ServedModel:
    """The model `generation.client.model`. A context manager; writes usage.json to the run folder at the end.

    Every call is written to the journal of the run folder before its reply is used, so that no reply is paid for twice. If a model
    refuses a conversation for its content, or returns an empty reply in all attempts, its reply is "". Any other failure raises an
    error, and the next run sends only what has no reply yet.
    """

    def __init__(self, cfg: DictConfig, folder: Path, trained_elsewhere: object = None, may_be_silent: bool = False):
        """`trained_elsewhere` identifies the training of the checkpoint on the server. `may_be_silent`: once the model has answered, a
        batch may get no answer at all. Raises UserError if the model cannot be called.
        """
        from cso_lab.llm.client import Client
        from cso_lab.llm.journal import Journal

        client = OmegaConf.to_container(cfg.generation.client, resolve=True)
        self._limits = {key: client[key] for key in LIMITS}
        self._model = {
            "model": client["model"],
            "temperature": cfg.generation.temperature,
            "max_tokens": cfg.generation.max_new_tokens,
        }
        # Part of the journal's keys: another checkpoint may be served under the same name.
        self._checkpoint = [trained_elsewhere] if trained_elsewhere else []
        # Part of the journal's keys unless decoding is greedy; a temperature of null is the server's, which is unknown.
        self._seed = cfg.generation.seed if cfg.generation.temperature != 0 else None
        self._fit, self._folds_system = _fit_function(cfg)
        self._folder, self._journal = Path(folder), Journal(folder, [_GROUP])
        self._empty_replies: Counter[str] = Counter()  # by reason
        self._may_be_silent, self._answered = may_be_silent, False
        self.batch_size: int | None = None  # one batch: the client limits how many requests are sent at a time
        Client(**self._limits, place=_LOCATION).check({SUPPORTER: client["model"]})

    def __enter__(self) -> "ServedModel":
        self._journal.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        """Closes the journal and writes usage.json."""
        self._journal.__exit__(*exception)
        write_json(
            self._folder / USAGE,
            {
                "model": self._model["model"],
                "usage": self._journal.usage.to_json(),
                "budget": self._limits["budget"],
                "without_words": dict(self._empty_replies),
                "stopped": str(exception[1]) if exception[1] else None,
            },
        )

    def fit(self, messages: Messages) -> Messages | None:
        """Returns the part of the conversation that is sent to the model; None if it is too long."""
        return self._fit(messages)

    def seed(self, batch: int) -> None:
        """Does nothing, since every question has a seed of its own."""

    def __call__(self, conversations: Sequence[Messages], free: bool = False) -> list[str]:
        """Returns the replies in the order of the conversations. `free` has no effect, since replies of servers are not constrained.

        Raises UserError if a conversation is too long or the model answered none of them (see `may_be_silent`).
        """
        from cso_lab.llm.ask_all import ask_all
        from cso_lab.llm.client import Client

        # A client for every call, because it belongs to one event loop; the journal counts the usage of all of them.
        client = Client(**self._limits, journal=self._journal, place=_LOCATION)
        model = self._model["model"]
        replies, refused = ask_all(client, self._journal, self._questions(conversations), f"ask {model}", "reply")
        self._empty_replies.update(refused.values())
        self._answered = self._answered or any(replies)
        if not any(replies) and not (self._may_be_silent and self._answered):
            reason = self._empty_replies.most_common(1)[0][0]
            raise UserError(f"{model} answered none of {len(replies)} questions, most often: {reason}")
        return [reply or "" for reply in replies]

    def _questions(self, conversations: Sequence[Messages]) -> "list[Question]":
        from cso_lab.llm.client import Question
        from cso_lab.training.chat_format import fold_system

        # Equal conversations are separate questions, told apart by a number.
        counts: Counter[str] = Counter()
        questions = []
        for messages in conversations:
            messages = self._fit(messages)
            if messages is None:
                raise UserError("a prompt is longer than generation.max_prompt_length: raise it")
            if self._folds_system:
                messages = fold_system(messages)
            content = digest(messages)
            key = digest([messages, self._model, self._seed, counts[content], *self._checkpoint])
            counts[content] += 1
            questions.append(Question(key, _GROUP, SUPPORTER, self._model, messages, int(key[:8], 16) >> 1, str))
        return questions


def _fit_function(cfg: DictConfig) -> tuple[Callable[[Messages], Messages | None], bool]:
    """Returns the function that limits conversations to their length, and whether the system prompt is folded into the first user turn.

    A checkpoint on a server is sent what it would be given in this process, which takes its tokenizer; an API model is sent everything.
    """
    if is_api(cfg):
        return lambda messages: messages, not cfg.backbone.system_role

    from cso_lab.training.backbone import load_tokenizer
    from cso_lab.training.chat_format import ChatFormat

    chat = ChatFormat(load_tokenizer(cfg))
    return lambda messages: chat.fit(messages, cfg.generation.max_prompt_length), chat.folds_system
