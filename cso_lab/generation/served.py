"""A model on a server, called through the LLM client: API models, and checkpoints served by vLLM or a similar server."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
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
from cso_lab.generation.shortening import drop_oldest_turns
from cso_lab.llm.config_location import ConfigLocation
from cso_lab.training.backbone import load_chat_format, template_variables

if TYPE_CHECKING:
    from cso_lab.llm.client import Client, Question
    from cso_lab.llm.errors import PromptTooLong
    from cso_lab.llm.own_server import OwnServer
    from cso_lab.llm.reasoning import ReplyText

USAGE = "usage.json"
_LOCATION = ConfigLocation(
    "generation.client", "generation.client.model", "generation.max_new_tokens", "generation.temperature"
)
# The journal groups replies, elsewhere by dialogue; here all are of one group.
_GROUP = "cell"


class ServedModel:
    """The model `generation.client.model`. A context manager; writes usage.json to the run folder at the end.

    Every call is written to the journal of the run folder before its reply is used, so that no reply is paid for twice. If a model
    refuses a conversation for its content, or returns an empty reply in all attempts, its reply is "". A conversation that is too long
    for the model is sent without its oldest turns. Any other failure raises an error, and the next run sends only what has no reply yet.
    """

    def __init__(
        self,
        cfg: DictConfig,
        folder: Path,
        served_identity: object = None,
        server: "OwnServer | None" = None,
        conversing: bool = False,
    ):
        """`served_identity` identifies what the server holds under the model's name. `server` is one that the run has started; None: that
        of `generation.client`. `conversing`: the model is asked turn by turn, so once it has answered, a round of questions may get no
        answer at all, and no batches are made. Raises UserError if the model cannot be called.
        """
        from cso_lab.llm import prices
        from cso_lab.llm.journal import Journal
        from cso_lab.llm.question import model_config
        from cso_lab.llm.transport import Transport

        client = OmegaConf.to_container(cfg.generation.client, resolve=True)
        self._limits = {key: client[key] for key in LIMITS}
        if conversing:
            self._limits["batch"] = False
        if server:
            prices.register_free(f"openai/{server.model}")
            self._limits |= _limits_of(cfg.serving, client, server)
        sampling = cfg.generation.temperature, cfg.generation.max_new_tokens
        self._model = model_config(f"openai/{server.model}" if server else client["model"], *sampling, client["extra"])
        self._fit, self._folds_system, variables = _chat_format(cfg)
        if variables:
            self._model["chat_template_kwargs"] = variables
        # Part of the journal's keys. A server of the run's own is asked for another name once the run folder is moved.
        self._asked = self._model | ({"model": None} if server else {})
        # Part of the journal's keys: another checkpoint may be served under the same name.
        self._checkpoint = [served_identity] if served_identity else []
        # Part of the journal's keys unless decoding is greedy; a temperature of null is the server's, which is unknown.
        self._seed = cfg.generation.seed if cfg.generation.temperature != 0 else None
        self._folder, self._journal = Path(folder), Journal(folder, [_GROUP])
        self._empty_replies: Counter[str] = Counter()  # by reason
        self._last_turns: set[str] = set()  # what the seekers say last, which is never dropped
        self._conversing, self._answered = conversing, False
        self.batch_size: int | None = None  # one batch: the client limits how many requests are sent at a time
        # One for all clients, since it remembers which parameters the server refuses.
        self._transport = Transport(self._limits["api_base"], self._limits["api_key_env"], _LOCATION)
        asking, models = self._client(), {SUPPORTER: self._model["model"]}
        asking.check(models)
        asking.check_batches(models)

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
                "shortened": {"prompts": len(self._journal.dropped_turns), "turns": sum(self._journal.dropped_turns.values())},
                "stopped": str(exception[1]) if exception[1] else None,
            },
        )

    def fit(self, messages: Messages) -> Messages | None:
        """Returns the part of the conversation that is sent to the model; None if it is too long."""
        self._last_turns.add(messages[-1]["content"])
        return self._fit(messages)

    def seed(self, batch: int) -> None:
        """Does nothing, since every question has a seed of its own."""

    def __call__(self, conversations: Sequence[Messages], free: bool = False) -> list[str]:
        """Returns the replies (ReplyText, or "") in the order of the conversations.

        `free` has no effect, since replies of servers are not constrained.

        Raises UserError if a conversation is too long or the model answered none of them (see `conversing`).
        """
        from cso_lab.llm.ask_all import ask_all

        # A client for every call, because it belongs to one event loop; the journal counts the usage of all of them.
        client, model, already = self._client(journal=self._journal), self._model["model"], len(self._journal.dropped_turns)
        replies, refused = ask_all(client, self._journal, self._questions(conversations), f"ask {model}", "reply")
        if shortened := len(self._journal.dropped_turns) - already:
            print(f"{shortened} of {len(replies)} prompts were too long for {model} and were sent without their oldest turns")
        self._empty_replies.update(refused.values())
        self._answered = self._answered or any(replies)
        if not any(replies) and not (self._conversing and self._answered):
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
            conversation = self._fit(messages)
            if conversation is None:
                raise UserError("a prompt is longer than generation.max_prompt_length: raise it")
            messages = fold_system(conversation) if self._folds_system else conversation
            content = digest(messages)
            key = digest([messages, self._asked, self._seed, counts[content], *self._checkpoint])
            counts[content] += 1
            seed, shorten = int(key[:8], 16) >> 1, partial(self._shorten, conversation)
            questions.append(Question(key, _GROUP, SUPPORTER, self._model, messages, seed, _same, shorten=shorten, trim=_same))
        return questions

    def _shorten(self, conversation: Messages, question: "Question", error: "PromptTooLong") -> "Question | None":
        """Returns the question without the oldest turns of its conversation; None if it has no turn left to drop."""
        from cso_lab.training.chat_format import fold_system

        reply_tokens = self._model["max_tokens"] or 0
        last = max(
            (i for i, message in enumerate(conversation) if message["content"] in self._last_turns),
            default=len(conversation) - 1,
        )
        shorter = drop_oldest_turns(conversation, last, question.dropped_turns, error.overflow, reply_tokens)
        if shorter is None:
            return None
        messages, dropped = shorter
        return replace(question, messages=fold_system(messages) if self._folds_system else messages, dropped_turns=dropped)

    def _client(self, **options) -> "Client":
        from cso_lab.llm.client import Client

        return Client(**self._limits, place=_LOCATION, transport=self._transport, **options)


def _same(reply: "ReplyText") -> "ReplyText":
    """Returns a reply as it is, also one that was cut: a prediction is what the model wrote."""
    return reply


def _limits_of(serving: DictConfig, client: dict, server: "OwnServer") -> dict:
    """Returns the limits in which a server of the run's own differs from those of `generation.client`: it takes no key."""
    at_once = min(client["max_concurrency"], serving.max_concurrency or client["max_concurrency"])
    return {"api_base": server.api_base, "api_key_env": None, "max_concurrency": at_once}


def _chat_format(cfg: DictConfig) -> tuple[Callable[[Messages], Messages | None], bool, dict]:
    """Returns the function that limits conversations to their length, whether the system prompt is folded into the first user turn, and
    the variables of the server's chat template.

    A checkpoint on a server is sent what it would be given in this process, which takes its tokenizer; an API model is sent everything.
    """
    if is_api(cfg):
        return lambda messages: messages, not cfg.backbone.system_role, template_variables(cfg)

    chat = load_chat_format(cfg)
    fit = partial(chat.fit, max_length=cfg.generation.max_prompt_length)
    return fit, chat.folds_system, chat.variables_of_requests()
