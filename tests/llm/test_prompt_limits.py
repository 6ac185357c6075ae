"""Error messages about prompts that are too long, as servers and providers word them."""

import pytest

from cso_lab.llm.prompt_limits import Overflow, overflow_in

# (message, (limit, tokens of the prompt, whether the limit counts the reply)); None: about something else
MESSAGES = [
    (
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9005 tokens. "
        "Please reduce the length of the messages. (context_length_exceeded)",
        (8192, 9005, False),
    ),
    (
        "This model's maximum context length is 4097 tokens. However, you requested 4226 tokens (226 in the "
        "messages, 4000 in the completion). Please reduce the length of the messages or completion.",
        (4097, 226, True),
    ),
    (
        "Input tokens exceed the configured limit of 272,000 tokens. Your messages resulted in 300,000 tokens. "
        "Please reduce the length of the messages.",
        (272000, 300000, False),
    ),
    ("Your input exceeds the context window of this model. Please adjust your input and try again.", (None, None, False)),
    (
        "This model's maximum context length is 8192 tokens. However, you requested 512 output tokens and your "
        "prompt contains at least 7681 input tokens, for a total of at least 8193 tokens.",
        (8192, 7681, True),
    ),
    (
        "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens. Please "
        "reduce the length of the input messages.",
        (4096, 5000, False),
    ),
    (
        "'max_tokens' or 'max_completion_tokens' is too large: 10000. This model's maximum context length is 4096 "
        "tokens and your request has 24 input tokens (10000 > 4096 - 24).",
        (4096, 24, True),
    ),
    ("The decoder prompt (length 5000) is longer than the maximum model length of 4096.", (4096, 5000, False)),
    (
        "You passed 4097 input tokens and requested 0 output tokens. However, the model's context length is only "
        "4096 tokens, resulting in a maximum input length of 4096 tokens.",
        (4096, 4097, True),
    ),
    ("max_tokens must be at least 1, got -186.", (None, None, True)),
    (
        "request (14429 tokens) exceeds the available context size (8192 tokens), try increasing it "
        "(exceed_context_size_error)",
        (8192, 14429, False),
    ),
    (
        "the request exceeds the available context size. try increasing the context size or enable context shift "
        "(n_prompt_tokens=1407, n_ctx=256)",
        (256, 1407, False),
    ),
    ("Requested tokens (2285) exceed context window of 2048", (2048, 2285, False)),
    (
        "This model's maximum context length is 2048 tokens, however you requested 2285 tokens (1773 in your "
        "prompt; 512 for the completion).",
        (2048, 1773, True),
    ),
    ("The input (61709 tokens) is longer than the model's context length (40960 tokens).", (40960, 61709, False)),
    (
        "Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens). Use a shorter input or "
        "enable --allow-auto-truncate.",
        (59862, 160062, False),
    ),
    (
        "Requested token count exceeds the model's maximum context length of 40960 tokens. You requested a total "
        "of 45000 tokens: 44000 tokens from the input messages and 1000 tokens for the completion.",
        (40960, 44000, True),
    ),
    (
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 1512. Given: 1000 `inputs` tokens "
        "and 1024 `max_new_tokens`",
        (1512, 1000, True),
    ),
    ("Input validation error: `inputs` must have less than 1024 tokens. Given: 1872", (1023, 1872, False)),
    ("prompt is too long: 210000 tokens > 200000 maximum (invalid_request_error)", (200000, 210000, False)),
    (
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length or "
        "`max_tokens` and try again",
        (200000, 190000, True),
    ),
    ("Request exceeds the maximum size (request_too_large)", (None, None, False)),
    ("The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).", (1048576, 1200293, False)),
    (
        "This endpoint's maximum context length is 131072 tokens. However, you requested about 141607 tokens "
        "(10535 of text input, 131072 in the output). Please reduce the length of either one, or use the "
        '"middle-out" transform',
        (131072, 10535, True),
    ),
    (
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        (32768, 40000, False),
    ),
    ("Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192", (8192, 9000, True)),
    ("Range of input length should be [1, 30720]", (30720, None, False)),
    ("This model's maximum prompt length is 131072 but the request contains 200000 tokens.", (131072, 200000, False)),
    (
        "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 45000. "
        "The input or output tokens must be reduced in order to run successfully.",
        (30000, 45000, True),
    ),
    ("Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 1500.", None),
    ("max_tokens is too large: 5000. This model supports at most 4096 completion tokens", None),
    ("Input is too long for requested model.", (None, None, False)),
    ("413 Request Entity Too Large", (None, None, False)),
    ("This request requires more credits, or fewer max_tokens. You requested up to 4096 tokens, but can only afford 3", None),
]


@pytest.mark.parametrize(("message", "expected"), MESSAGES)
def test_a_prompt_that_is_too_long_and_the_limit_are_read_from_the_message(message, expected):
    assert overflow_in(message) == (expected and Overflow(*expected))
