"""Servers that say no: each refusal is overcome, or is one line that says what to change."""

import asyncio
import subprocess

import pytest
from fakes import FakeOpenAI, Reply, failure
from llm.test_client import CHAT, MODEL, SCORES, ask, client, question, within
from loopback import answering, search
from refusals import (
    BAD_GATEWAY,
    CUT_BY_FILTER,
    LOGIN_PAGE,
    NO_CHOICES,
    NOT_FOUND,
    REFUSED_PARAMETER,
    TOO_LONG,
    UNPROCESSABLE,
    bad_request,
    in_parts,
    refusing,
    with_limit,
    without,
)

from cso_lab.llm.errors import InvalidRequest, PromptTooLong, RefusedError, RoleFailure, ServiceError
from cso_lab.roles.parsing import parse_judge


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def one_line_errors(monkeypatch):
    """Whatever is raised is printed as one line."""
    yield
    assert not [error for error in RAISED if "\n" in error]
    RAISED.clear()


RAISED: list[str] = []


def raised(kind: type[Exception], asking, **options) -> str:
    """The message of the error that a question ends with."""
    with pytest.raises(kind) as error:
        ask(asking, **options)
    RAISED.append(str(error.value))
    return str(error.value)


# parameters


@pytest.mark.parametrize("wording", REFUSED_PARAMETER)
def test_a_seed_that_is_refused_is_left_out_with_one_warning(wording, capsys):
    with FakeOpenAI(without("seed", lambda body: Reply("a"), REFUSED_PARAMETER[wording])) as server:
        asking = client(server)

        async def several():
            return await asyncio.gather(*(asking.ask(question(seed)) for seed in range(4)))

        assert asyncio.run(within(asking, several())) == ["a"] * 4
        assert ask(asking) == "a"
    assert server.requests[-1] == {"model": "tiny", "messages": CHAT, "temperature": 0.3, "max_tokens": 17}
    assert asking.usage.failed_attempts == 0 and len(server.requests) <= 9
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: openai/tiny does not take the parameter seed, which is left out")


@pytest.mark.parametrize(
    "message",
    [
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "Use max_completion_tokens instead of max_tokens, which is deprecated.",
    ],
)
def test_a_parameter_with_another_name_is_renamed_with_one_warning(message, capsys):
    with FakeOpenAI(without("max_tokens", lambda body: Reply("a"), lambda name: bad_request(message))) as server:
        asking = client(server)
        assert ask(asking) == ask(asking) == "a"
    assert len(server.requests) == 3
    assert server.requests[-1]["max_completion_tokens"] == 17 and "max_tokens" not in server.requests[-1]
    assert capsys.readouterr().err.count("max_tokens, which is sent as max_completion_tokens instead") == 1


def test_parameters_that_are_refused_one_after_the_other_are_all_dealt_with(capsys):
    with FakeOpenAI(without("seed", without("max_tokens", lambda body: Reply("a")))) as server:
        assert ask(client(server)) == "a"
    assert len(server.requests) == 3 and len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize(
    ("refusal", "advice"),
    [
        (
            bad_request(
                "Unsupported value: 'temperature' does not support 0.3 with this model. Only the default (1) is supported."
            ),
            "give roles.judge.temperature=null",
        ),
        (bad_request("Unsupported parameter: max_tokens, max_completion_tokens"), "give roles.judge.max_tokens=null"),
        (
            bad_request("max_tokens is too large: 17. This model supports at most 9 completion tokens"),
            "lower roles.judge.max_tokens",
        ),
        (bad_request("Input validation error: `max_new_tokens` must be <= 9. Given: 17", 422), "lower roles.judge.max_tokens"),
        (TOO_LONG["vLLM"](16, 3, 17), "lower roles.judge.max_tokens"),
    ],
)
def test_a_parameter_that_decides_on_the_replies_is_an_error_that_names_the_key(refusal, advice):
    with FakeOpenAI(refusal) as server:
        asking = client(server)
        message = raised(ServiceError, asking)
        with pytest.raises(ServiceError):  # and nothing more is asked
            ask(asking, seed=6)
    assert message.startswith("openai/tiny as judge: ") and advice in message
    assert len(server.requests) <= 2


def test_refused_parameters_of_litellms_providers_are_dealt_with_alike():
    model = MODEL | {"model": "hosted_vllm/tiny"}
    with FakeOpenAI(without("seed", lambda body: Reply("a"))) as server:
        assert ask(client(server), model=model) == "a"
    with FakeOpenAI(bad_request("'temperature' is not supported with this model")) as server:
        assert "give roles.judge.temperature=null" in raised(ServiceError, client(server), model=model)


# prompts that are too long


@pytest.mark.parametrize("wording", TOO_LONG)
def test_a_prompt_that_is_too_long_is_refused_once(wording):
    with FakeOpenAI(TOO_LONG[wording](3000, 4000, 17)) as server:
        message = raised(PromptTooLong, client(server))
    assert message.startswith("judge: request refused: ") and message.endswith("the prompt is too long for the model")
    assert len(server.requests) == 1


# the model and the address


def test_an_unknown_model_is_an_error_with_the_models_there_are():
    with FakeOpenAI(failure(404, "The model `tiny` does not exist"), models=[*"abcdef", "tiny2"]) as server:
        message = raised(ServiceError, client(server))
    assert "has no model tiny, it has openai/tiny2, openai/a, openai/b, openai/c, openai/d and 2 more" in message
    with FakeOpenAI(failure(404, "The model `tiny` does not exist")) as server:
        assert "404: The model `tiny` does not exist" in raised(ServiceError, client(server))
    with FakeOpenAI(NOT_FOUND, models=["other"]) as server:
        assert "has no model tiny, it has openai/other" in raised(ServiceError, client(server))


@pytest.mark.parametrize("ending", ["", "/", "//", "/chat/completions", "/chat/completions/"])
def test_slashes_and_a_pasted_path_at_the_end_of_an_address_do_no_harm(ending):
    with FakeOpenAI(Reply("a"), strict=True) as server:
        assert ask(client(api_base=server.api_base + ending)) == "a"
    assert server.gets == []


@pytest.mark.parametrize("path", ["", "/", "/api", "/v1/v1"])
def test_an_address_of_another_path_is_an_error_with_the_right_one(path):
    with FakeOpenAI(Reply("a"), models=["tiny"], strict=True) as server:
        root = server.api_base.removesuffix("/v1")
        message = raised(ServiceError, client(api_base=root + path))
    assert f"give roles.api_base={root}/v1" in message and "404: Not Found" in message
    assert len(server.requests) == 1


def test_an_address_without_anything_is_an_error_with_the_form_of_one():
    with FakeOpenAI(Reply("a"), strict=True) as server:
        message = raised(ServiceError, client(api_base=server.api_base + "/there"))
    assert "nothing is served at" in message and "roles.api_base should be an address such as http://HOST:PORT/v1" in message


def test_a_web_page_where_the_api_should_be_is_an_error_with_the_right_address():
    def reply(body):
        return Reply("a")

    with FakeOpenAI(LOGIN_PAGE, models=["tiny"]) as server:
        root = server.api_base.removesuffix("/v1")
        message = raised(ServiceError, client(api_base=root))
    assert f"give roles.api_base={root}/v1" in message and "an HTML page: Sign in & go on" in message
    assert len(server.requests) == 1


@pytest.mark.parametrize("page", [LOGIN_PAGE, BAD_GATEWAY])
def test_a_page_of_a_proxy_is_asked_again_and_shown_by_its_title(page):
    with FakeOpenAI(page, Reply("a")) as server:
        assert ask(client(server)) == "a"
    with FakeOpenAI(page) as server:
        message = raised(RoleFailure, client(server))
    assert len(server.requests) == 3 and "an HTML page: " in message and "<" not in message


def test_a_redirect_is_an_error_with_the_address_it_leads_to():
    moved = Reply(status=301, headers={"Location": "https://example.org/v1/chat/completions"}, body="")
    with FakeOpenAI(moved) as server:
        message = raised(ServiceError, client(server))
    assert message.endswith("redirects to another address: give roles.api_base=https://example.org/v1")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of this machine's own, with its key."""
    file = tmp_path_factory.mktemp("certificate") / "server.pem"
    line = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    subprocess.run([*line.split(), "-keyout", file, "-out", file.with_suffix(".crt")], check=True, capture_output=True)
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


def test_http_and_https_mixed_up_are_errors_that_say_so(certificate):
    with FakeOpenAI(Reply("a")) as server:
        message = raised(ServiceError, client(api_base=server.api_base.replace("http:", "https:")))
        assert "cannot be spoken to over https" in message and "give roles.api_base with http://" in message
    with FakeOpenAI(Reply("a"), certificate=certificate) as server:
        message = raised(ServiceError, client(api_base=server.api_base.replace("https:", "http:")))
        assert f"answers over https: give roles.api_base={server.api_base}" in message
        assert "the server's certificate is not valid" in raised(ServiceError, client(server))
    plain = bad_request("The plain HTTP request was sent to HTTPS port")
    with FakeOpenAI(plain) as server:
        message = raised(ServiceError, client(server))
    assert "sent to HTTPS port" in message and message.endswith("give its address with https:// instead of http://")
    assert len(server.requests) == 1


# replies of another form


def test_an_answer_in_parts_is_their_text():
    with FakeOpenAI(in_parts(("thinking", "hm"), ("text", "I hear"), ("text", " you."))) as server:
        assert ask(client(server)) == "I hear you."


def test_what_a_content_filter_has_cut_is_no_reply():
    with FakeOpenAI(CUT_BY_FILTER, Reply("a")) as server:
        assert ask(client(server)) == "a"
    with FakeOpenAI(CUT_BY_FILTER) as server:
        message = raised(RefusedError, client(server))
    assert len(server.requests) == 3 and "finish_reason: content_filter" in message


def test_one_question_without_choices_is_at_fault_where_others_are_answered():
    def reply(body):
        return NO_CHOICES if body["seed"] == 1 else Reply("a")

    with FakeOpenAI(reply) as server:
        asking = client(server, max_concurrency=1)

        async def several():
            return await asyncio.gather(*(asking.ask(question(seed)) for seed in (1, 2, 3)), return_exceptions=True)

        first, *others = asyncio.run(within(asking, several()))
    assert others == ["a", "a"]
    assert isinstance(first, InvalidRequest) and "no choices" in str(first)


# a question that alone is at fault, and one like all others


@pytest.mark.long
def test_a_search_sets_the_dialogue_of_a_refused_question_aside(tmp_path):
    answer, opening = answering().replies[0], []

    def reply(body):
        opening.append(body["messages"][1]["content"][-60:])
        return refusing(opening[0], UNPROCESSABLE, answer)(body)

    with FakeOpenAI(reply) as server:
        summary = search(tmp_path, server.api_base)
    assert len(summary["set_aside"]) == summary["trees"] == 1 and summary["stopped"] is None
    assert "422: body.messages.1: Conversation roles must alternate" in next(iter(summary["set_aside"].values()))


@pytest.mark.long
def test_a_search_whose_prompts_are_too_long_sets_aside_what_does_not_fit(tmp_path):
    with FakeOpenAI(with_limit(900, answering().replies[0])) as server:
        summary = search(tmp_path, server.api_base)
    assert len(summary["set_aside"]) == summary["trees"] == 1
    assert next(iter(summary["set_aside"].values())).endswith("the prompt is too long for the model")


def test_a_search_of_which_no_question_is_taken_stops(tmp_path):
    with FakeOpenAI(UNPROCESSABLE) as server:
        with pytest.raises(ServiceError, match="takes no question at all.*Conversation roles must alternate"):
            search(tmp_path, server.api_base, "roles.max_concurrency=2", dialogues=6)
    assert len(server.requests) <= 6


def test_many_questions_in_a_row_that_are_refused_do_not_stop_the_others():
    def reply(body):
        return Reply(SCORES) if body["seed"] == 11 or body["messages"] != CHAT else UNPROCESSABLE

    with FakeOpenAI(reply) as server:
        asking = client(server, max_concurrency=1)

        async def several():
            return await asyncio.gather(
                *(asking.ask(question(seed, parse_judge)) for seed in range(12)), return_exceptions=True
            )

        answers = asyncio.run(within(asking, several()))
    assert answers.pop() == {"E": 3, "I": 2, "H": 4, "S": 1}
    assert {type(answer) for answer in answers} == {InvalidRequest}
    assert asking.usage.calls["judge"] == len(server.requests) == 12 + 2  # after 3 in a row a greeting, and after 6 more
