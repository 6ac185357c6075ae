"""What servers say when they refuse a request: modes of the imitation server, in the wordings of servers and providers."""

from collections.abc import Callable

from fakes import Reply

Responder = Callable[[dict], Reply]


def words(messages: list[dict]) -> int:
    """The tokens of a prompt, as the imitation counts them."""
    return sum(len(message["content"].split()) for message in messages)


def bad_request(message: str, status: int = 400, **fields) -> Reply:
    return Reply(status=status, body={"error": {"message": message, "type": "invalid_request_error"} | fields})


# The refusal of a prompt of `n` tokens by a model that takes `limit` with the `reply` tokens asked for.
TOO_LONG: dict[str, Callable[[int, int, int], Reply]] = {
    "OpenAI": lambda limit, n, reply: bad_request(
        f"This model's maximum context length is {limit} tokens. However, you requested {n + reply} tokens ({n} in the messages,"
        f" {reply} in the completion). Please reduce the length of the messages or completion.",
        code="context_length_exceeded",
    ),
    "vLLM": lambda limit, n, reply: Reply(
        status=400,
        body={
            "object": "error",
            "message": f"This model's maximum context length is {limit} tokens. However, you requested {reply} output tokens and your"
            f" prompt contains at least {n} input tokens, for a total of at least {n + reply} tokens.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    "llama.cpp": lambda limit, n, reply: bad_request(
        "the request exceeds the available context size. try increasing the context size or enable context shift",
        500,
        type="exceed_context_size_error",
        n_prompt_tokens=n,
        n_ctx=limit - reply,
    ),
    "SGLang": lambda limit, n, reply: bad_request(
        f"Requested token count exceeds the model's maximum context length of {limit} tokens. You requested a total of {n + reply}"
        f" tokens: {n} tokens from the input messages and {reply} tokens for the completion."
    ),
    "TGI": lambda limit, n, reply: Reply(
        status=422,
        body={
            "error": f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {limit}. Given: {n} `inputs` tokens and"
            f" {reply} `max_new_tokens`",
            "error_type": "validation",
        },
    ),
    "Anthropic": lambda limit, n, reply: bad_request(f"prompt is too long: {n} tokens > {limit - reply} maximum"),
    "Gemini": lambda limit, n, reply: Reply(
        status=400,
        body=[
            {
                "error": {
                    "code": 400,
                    "message": f"The input token count ({n}) exceeds the maximum number of tokens allowed ({limit - reply}).",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
    ),
    "OpenRouter": lambda limit, n, reply: Reply(
        body={
            "error": {
                "message": f"This endpoint's maximum context length is {limit} tokens. However, you requested about {n + reply} tokens"
                f" ({n} of text input, {reply} in the output). Please reduce the length of either one.",
                "code": 400,
            }
        }
    ),
}
NO_LIMIT_NAMED = {
    "no limit": lambda limit, n, reply: bad_request("Input is too long for requested model."),
    "413": lambda limit, n, reply: Reply(
        status=413, body="<html><head><title>413 Request Entity Too Large</title></head><body>nginx</body></html>"
    ),
}


def with_limit(limit: int, answer: Responder, wording: Callable[[int, int, int], Reply] = TOO_LONG["OpenAI"]) -> Responder:
    """A model that takes `limit` tokens of prompt and reply together, and else refuses with `wording`."""

    def reply(body: dict) -> Reply:
        n, asked = words(body["messages"]), body.get("max_tokens") or 0
        return answer(body) if n + asked <= limit else wording(limit, n, asked)

    return reply


# Refusals of a parameter {name}.
REFUSED_PARAMETER = {
    "OpenAI": lambda name: bad_request(
        f"Unsupported parameter: '{name}' is not supported with this model.", param=name, code="unsupported_parameter"
    ),
    "OpenAI, earlier": lambda name: bad_request(f"Unrecognized request argument supplied: {name}"),
    "Groq": lambda name: bad_request(f"property '{name}' is unsupported"),
    "Gemini": lambda name: bad_request(f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'),
    "transformers serve": lambda name: Reply(status=422, body={"detail": f"Unexpected fields in the request: {{'{name}'}}"}),
    "FastAPI": lambda name: Reply(
        status=422,
        body={
            "detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": 1}]
        },
    ),
    "under 200": lambda name: Reply(body={"error": {"message": f"Argument not supported on this model: {name}"}}),
}


def without(name: str, answer: Responder, wording: Callable[[str], Reply] = REFUSED_PARAMETER["OpenAI"]) -> Responder:
    """A model that does not take the parameter `name`."""
    return lambda body: wording(name) if name in body else answer(body)


def refusing(part: str, refusal: Reply, answer: Responder) -> Responder:
    """A server that refuses the requests with `part` in one of their messages."""
    return lambda body: refusal if any(part in message["content"] for message in body["messages"]) else answer(body)


UNPROCESSABLE = Reply(
    status=422, body={"detail": [{"loc": ["body", "messages", 1], "msg": "Conversation roles must alternate"}]}
)
"""A request that is invalid for a reason of its own."""
CUT_BY_FILTER = Reply(
    body={
        "choices": [{"message": {"content": "You could just"}, "finish_reason": "content_filter"}],
        "usage": {"prompt_tokens": 7},
    }
)
NO_CHOICES = Reply(body={"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 0}})
LOGIN_PAGE = Reply(body="<!DOCTYPE html><html><head><title>Sign in &amp; go on</title></head><body>x</body></html>")
BAD_GATEWAY = Reply(status=502, body="<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>")
NOT_FOUND = Reply(status=404, body={"detail": "Not Found"})


def in_parts(*parts: tuple[str, str]) -> Reply:
    """A completion whose content is a list of (type, text)."""
    content = [{"type": kind, kind: text} for kind, text in parts]
    return Reply(body={"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]})
