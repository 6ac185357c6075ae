"""Values sent to a model, and what a client is held to: what cannot work is refused in one line before any work."""

from functools import cache

import pytest
from fakes import FakeOpenAI, Reply
from generation.test_served import echo, served
from hydra.core.override_parser.overrides_parser import OverridesParser
from llm.test_client import MODEL, ask, client
from loopback import answering, search
from omegaconf import DictConfig, OmegaConf
from project import composed, run_py

from cso_lab.config.clients import LIMITS, Limits
from cso_lab.core.errors import UserError
from cso_lab.judging.settings import load_settings
from cso_lab.pipeline.cell_names import uses_seed
from cso_lab.pipeline.check import check

ROLES = ("seeker", "supporter", "strategist", "judge")
PARAMETERS = [
    ("max_tokens=abc", "max_tokens=abc: should be a valid integer, or null"),
    ("max_tokens=-5", "max_tokens=-5: should be greater than or equal to 1, or null"),
    ("max_tokens=0", "max_tokens=0: should be greater than or equal to 1, or null"),
    ("max_tokens=7.5", "max_tokens=7.5: should be a valid integer, or null"),
    ("max_tokens=true", "max_tokens=True: should be a valid integer, or null"),
    ("temperature=hot", "temperature=hot: should be a valid number, or null"),
    ("temperature=-3", "temperature=-3: should be greater than or equal to 0, or null"),
    ("temperature=nan", "temperature=nan: should be a finite number, or null"),
    ("temperature=true", "temperature=True: should be a valid number, or null"),
    ("temperature=[1]", "temperature=[1]: should be a valid number, or null"),
]
OF_CLIENTS = [
    ("timeout=soon", "timeout=soon: should be a valid number"),
    ("timeout=inf", "timeout=inf: should be a finite number"),
    ("max_attempts=0", "max_attempts=0: should be greater than or equal to 1"),
    ("max_attempts=null", "max_attempts=None: should be a valid integer"),
    ("max_concurrency=-1", "max_concurrency=-1: should be greater than or equal to 1"),
    ("api_base=localhost", "api_base=localhost: should be an address such as http://HOST:PORT/v1, or null"),
    ("api_base=localhost:8000/v1", "api_base=localhost:8000/v1: should be an address such as http://HOST:PORT/v1, or null"),
    ("api_base=http://h:port/v1", "api_base=http://h:port/v1: should be an address such as http://HOST:PORT/v1, or null"),
    ("api_base='http://h /v1'", "api_base=http://h /v1: should be an address such as http://HOST:PORT/v1, or null"),
    (
        "api_base=http://h/v1/models",
        "api_base=http://h/v1/models: should be an address such as http://HOST:PORT/v1, without /models, or null",
    ),
    (
        "api_base=http://h/v1/completions/",
        "api_base=http://h/v1/completions/: should be an address such as http://HOST:PORT/v1, without /completions/, or null",
    ),
    ("api_key_env=5", "api_key_env=5: should be a valid string, or null"),
    ("requests_per_minute=0", "requests_per_minute=0: should be greater than 0, or null"),
    ("budget.dollars=much", "budget.dollars=much: should be a valid number, or null"),
    ("batch=maybe", "batch=maybe: should be a valid boolean"),
    ("batch_poll=0", "batch_poll=0: should be greater than 0"),
    ("batch_tokens=0", "batch_tokens=0: should be greater than or equal to 1, or null"),
    ("budget=5", "budget=5: should be a valid dictionary"),
]


@cache
def whole() -> DictConfig:
    return composed("stages=[inspect]")


def refused(given: str) -> str:
    """What is said of one value, given to the whole configuration as on the command line."""
    cfg, override = whole().copy(), OverridesParser.create().parse_override(given)
    OmegaConf.update(cfg, override.key_or_group, override.value(), merge=False, force_add=True)
    return said_of(cfg)


def said_of(cfg: DictConfig) -> str:
    with pytest.raises(UserError) as error:
        check(cfg)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("given", "said"), PARAMETERS)
def test_what_no_model_could_be_sent(given, said):
    role = ROLES[len(given) % 4]
    assert refused(f"roles.{role}.{given}").startswith(f"roles.{role}.{said}")
    assert refused(f"toxicity.{given}").startswith(f"toxicity.{said}")
    sent, said = (text.replace("max_tokens", "max_new_tokens") for text in (given, said))
    assert refused(f"generation.{sent}").startswith(f"generation.{said}")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("{model: a}", "model is set elsewhere"),
        ("{maxTokens: 5}", "maxTokens is set elsewhere"),
        ("{stream: true}", "stream is set elsewhere"),
        ("{mock_response: secret-value}", "mock_response is set elsewhere"),
        ("{api_key: secret-value}", "api_key looks like a key or an address"),
        ("{apiKey: secret-value}", "apiKey looks like a key or an address"),
        ("{extra-headers: {a: secret-value}}", "extra-headers looks like a key or an address"),
        ("{Authorization: secret-value}", "Authorization looks like a key or an address"),
        ("{base_url: secret-value}", "base_url looks like a key or an address"),
        ("{options: [{hf_token: secret-value}]}", "hf_token looks like a key or an address"),
        ("{user: sk-secret-value}", "user looks like a key or an address"),
        ("{router: {to: ['http://secret-value/v1']}}", "to looks like a key or an address"),
        ("{top_p: nan}", "has a value that JSON cannot hold"),
    ],
)
def test_extra_fields_carry_no_key_and_no_address_and_nothing_that_is_set_elsewhere(given, field):
    override = f"extra={given}"
    for key in ("roles.judge", "generation.client", "toxicity"):
        said = refused(f"{key}.{override}")
        assert said.startswith(f"{key}.extra: {field}") and "secret-value" not in said
    with pytest.raises(UserError) as error:
        load_settings([override])
    assert str(error.value).startswith(f"extra: {field}") and "secret-value" not in str(error.value)


def test_the_form_of_scores_is_one_of_four():
    said = "structured=xml: should be 'auto', 'json_schema', 'json_object' or 'none'"
    for key in ("roles.strategist", "roles.judge", "toxicity"):
        assert refused(f"{key}.structured=xml") == f"{key}.{said}"
    with pytest.raises(UserError, match=f"^{said}$"):
        load_settings(["structured=xml"])
    assert refused("roles.seeker.structured=auto").startswith("unknown key under roles.seeker 'structured'")


def test_extra_fields_are_a_mapping_of_any_others():
    assert refused("roles.judge.extra=5") == "roles.judge.extra=5: should be a valid dictionary, or null"
    cfg = whole().copy()
    cfg.roles.judge.extra = {"top_p": 0.9, "prompt_cache_key": "a", "stop_token_ids": [1], "chat_template_kwargs": {"x": True}}
    check(cfg)


@pytest.mark.parametrize(("given", "said"), OF_CLIENTS)
def test_what_no_client_could_be_held_to(given, said):
    assert refused(f"generation.client.{given}").startswith(f"generation.client.{said}")
    assert refused(f"roles.{given}").startswith(f"roles.{said}")
    assert refused(f"toxicity.client.{given}").startswith(f"toxicity.client.{said}")


@pytest.mark.parametrize(
    ("given", "said"),
    [PARAMETERS[0], PARAMETERS[6], *((f"client.{given}", f"client.{said}") for given, said in OF_CLIENTS[:2])],
)
def test_what_no_judge_could_be_sent(given, said):
    with pytest.raises(UserError) as error:
        load_settings([given])
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("+roles.judge.max_token=5", "unknown key under roles.judge 'max_token': did you mean 'max_tokens'?"),
        ("+roles.max_concurency=5", "unknown key under roles 'max_concurency': did you mean 'max_concurrency'?"),
        ("+roles.budget.dolars=5", "unknown key under roles.budget 'dolars': did you mean 'dollars'?"),
        ("+generation.client.atempts=5", "unknown key under generation.client 'atempts': did you mean 'max_attempts'?"),
        ("+toxicity.client.api_bas=x", "unknown key under toxicity.client 'api_bas': did you mean 'api_base'?"),
        ("~roles.judge.max_tokens", "roles.judge lacks the key max_tokens: give roles.judge.max_tokens=VALUE"),
        ("roles.judge=5", "roles.judge=5: should be a valid dictionary"),
        (
            "generation.max_new_tokens=null",
            "generation.max_new_tokens=null leaves it to a server, and smollm2 runs in this process",
        ),
        (
            "backbone.chat_template_kwargs={enable_thinking:true}",
            "backbone.chat_template_kwargs.enable_thinking=True: a model in this process replies without thinking",
        ),
        ("toxicity=perspective toxicity.language=5", "toxicity.language=5: should be a valid string"),
    ],
)
def test_keys_that_are_unknown_or_missing_are_named(given, said):
    assert said_of(composed(*given.split())).startswith(said)


def test_the_command_says_it_in_one_line_before_any_work(tmp_path):
    done = run_py("roles.judge.max_tokens=abc", f"hydra.run.dir={tmp_path}/run", f"shared_dir={tmp_path}/shared")
    assert done.returncode == 2
    assert done.stderr == "error: roles.judge.max_tokens=abc: should be a valid integer, or null\n"
    assert not (tmp_path / "shared").exists()


def test_every_key_of_a_clients_limits_is_checked():
    assert set(LIMITS) == set(Limits.model_fields)


def test_null_leaves_a_parameter_out():
    with FakeOpenAI(Reply("a")) as server:
        ask(client(server, tokens_per_minute=1e6), model=MODEL | {"max_tokens": None})
        ask(client(server), model=MODEL | {"temperature": None})
        ask(client(server), model=MODEL | {"model": "hosted_vllm/tiny", "max_tokens": None, "temperature": None})
    sent = [set(body) & {"temperature", "max_tokens", "max_completion_tokens"} for body in server.requests]
    assert sent == [{"temperature"}, {"max_tokens"}, set()]


def test_a_search_and_a_cell_without_limits_of_replies(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    without = [f"roles.{role}.{key}=null" for role in ROLES for key in ("max_tokens", "temperature")]
    with answering() as server:
        summary = search(tmp_path / "search", server.api_base, *without, dialogues=1)
        assert summary["trees"] == 1 and summary["estimate"]["completion_tokens"] > 0
        assert not any({"max_tokens", "temperature"} & set(body) for body in server.requests)
    with FakeOpenAI(echo) as server:
        assert len(served(tmp_path / "cell", server, "generation.max_new_tokens=null", "generation.temperature=null")) == 5
        assert not any({"max_tokens", "temperature"} & set(body) for body in server.requests)


def test_a_cell_at_a_models_own_temperature_is_a_sampled_one():
    api = ("backbone=api", "backbone.model=openai/x", "algo=base")
    found = [uses_seed(composed(*api, f"generation.temperature={value}")) for value in ("0", "0.7", "null")]
    assert found == [False, True, True]
