"""Every choice composes, every job of every sweep composes, and the command line says what is wrong in one line."""

import shlex
import subprocess
import sys

import pytest
from omegaconf import OmegaConf
from project import CONF, ROOT, composed, jobs_of, option, run_py, without_hydra

from cso_lab.config.error_messages import explain
from cso_lab.core.errors import UserError
from cso_lab.pipeline.cell_names import cell_name
from cso_lab.pipeline.check import check

CHOICES = [
    f"{group.name}={option.stem}"
    for group in sorted(CONF.iterdir())
    if group.is_dir()
    for option in sorted(group.glob("*.yaml"))
]
SWEEPS = [(kind.name, sweep.stem) for kind in (ROOT / "experiments").iterdir() for sweep in kind.glob("*.yaml")]
# What an option needs beside itself.
NEEDED = {"backbone=api": ["backbone.model=openai/x"]}
NEEDED |= {f"serving={file.stem}": ["generation.engine=server"] for file in CONF.glob("serving/*.yaml") if file.stem != "none"}
NEEDED |= {"roles=transformers": ["roles.seeker.model=openai/x", "roles.supporter.model=openai/x"], "roles=self": ["rounds=2"]}


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_resolves(choice):
    group, _, name = choice.partition("=")
    # A backbone with an `engine` is an API model, which is never trained.
    needed = ["algo=base"] if group == "backbone" and "engine" in option(group, name) else []
    cfg = composed(choice, *needed, *NEEDED.get(choice, ()))
    assert OmegaConf.to_container(cfg, resolve=True)["stages"][0] == "search"
    if choice not in ("data=extes", "data=esconv", "data=escpro", "roles=server"):
        check(cfg)


@pytest.mark.parametrize(
    ("kind", "name"), [sweep if sweep[1] == "9" else pytest.param(*sweep, marks=pytest.mark.long) for sweep in SWEEPS]
)
def test_every_job_of_every_sweep_is_possible(kind, name):
    # As typed the paper's sources wait for a file; any will do to be checked.
    jobs = jobs_of(f"+{kind}='{name}'", *(["data.path=pkg://cso_lab.corpora/sample.json"] if name.isdigit() else []))
    for job in jobs:
        check(without_hydra(job))
    assert len({cell_name(job) for job in jobs}) == len(jobs) > 0


def test_a_swept_value_changes_the_name_of_a_cell_and_the_seed_only_its_seed():
    names = [cell_name(composed(*line)) for line in ([], ["training.learning_rate=1e-3"], ["seed=1"], ["algo=base"])]
    assert len(set(names)) == 4
    assert names[0].replace("seed0", "seed1") == names[2]
    assert cell_name(composed("algo=base", "seed=1", "training.learning_rate=1e-3")) == names[3]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["backbone=lama"], "did you mean 'llama'"),
        (["training.learning_rat=1"], "did you mean 'learning_rate'"),
        (["training.batch_size=-3"], "training.batch_size=-3"),
        (["data.test_share=2"], "data.test_share=2"),
        (["generation.dialogues=validation"], "data.validation_share=0.0 leaves no dialogue to measure on"),
        (["stages=[serch]"], "did you mean 'search'"),
        (["data=extes"], "data.path=FILE"),
        (["roles=server"], "roles.api_base"),
        (["roles=openai"], "needs OPENAI_API_KEY"),
        (["+table=nothing"], "demo"),
        (["backbone=gpt_4o"], "backbone=gpt_4o is an API model and is never trained: give algo=base, not algo=dpo"),
    ],
)
def test_an_error_is_one_line_that_names_what_would_be_right(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = run_py(*arguments, f"hydra.run.dir={tmp_path}", f"shared_dir={tmp_path}/shared")
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ") and expected in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["backbone=gpt_4o", "algo=base", "generation.engine=local"], "does not run here"),
        (["backbone=api", "algo=base"], "give backbone.model=PROVIDER/NAME"),
        (["generation.engine=server"], "give generation.client.model=openai/NAME"),
        (["generation.engine=server", "generation.client.model=openai/x"], "generation.client.api_base=http://HOST:PORT/v1"),
        (["backbone=gpt_4o", "algo=base", "generation.constrain=format"], "give generation.constrain=none"),
        (["backbone=gpt_4o", "algo=base", "generation.constrain=likelihood"], "give generation.constrain=none"),
        (["generation.client.max_attempts=0"], "generation.client.max_attempts=0"),
        (["generation.client.budget.dollars=-1"], "generation.client.budget.dollars=-1"),
        (["evaluation.testset=all"], "evaluation.testset=all"),
        (["evaluation.shortest=20"], "evaluation.shortest=20 is above evaluation.longest=15"),
    ],
)
def test_an_impossible_cell_is_refused_before_any_work(line, expected):
    with pytest.raises(UserError, match=expected):
        check(composed(*line))


def test_cells_that_differ_in_decoding_test_set_or_server_have_names_of_their_own():
    lines = [
        [],
        ["decoding=self_refine"],
        ["decoding=with_example"],
        ["evaluation.testset=strategy"],
        ["evaluation.testset=strategy", "evaluation.testset_seed=1"],
        ["generation.engine=server", "generation.client.model=openai/a"],
        ["generation.engine=server", "generation.client.model=openai/b"],
    ]
    names = [cell_name(composed(*line)) for line in lines]
    assert len(set(names)) == len(names) and "self_refine" in names[1]
    # what only says how a server is asked, or is not used, makes no other cell
    for line in (["generation.client.max_attempts=2", "generation.client.budget.calls=9"], ["evaluation.testset_seed=1"]):
        assert cell_name(composed(*line)) == names[0]


def test_a_prompt_drawn_by_a_seed_is_a_cell_a_seed_and_a_plain_one_is_not():
    plain, example = [
        [f"algo=base decoding={name} seed={seed}".split() for seed in (0, 1)] for name in ("plain", "with_example")
    ]
    assert len({cell_name(composed(*line)) for line in plain}) == 1
    names = [cell_name(composed(*line)) for line in example]
    assert names[0].replace("seed0", "seed1") == names[1] != names[0]


def test_a_stage_without_its_input_says_which_command_makes_it(tmp_path):
    done = run_py("stages=[dataset]", f"hydra.run.dir={tmp_path}", f"shared_dir={tmp_path}/shared")
    assert done.returncode == 2
    assert "python run.py 'stages=[search]'" in done.stderr


def test_help_and_the_shown_configuration_import_nothing_heavy():
    probe = (
        "import sys, runpy; sys.argv = ['run.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('run.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('HEAVY', [name for name in ('torch', 'litellm', 'transformers', 'trl') if name in sys.modules])"
    )
    for arguments in (["--help"], ["backbone=gemma", "algo=kto", "mode=lora", "--cfg", "job", "--resolve"]):
        done = subprocess.run([sys.executable, "-c", probe, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines()[-1] == "HEAVY []", done.stdout[-500:] + done.stderr


def test_one_error_of_tasks_that_ran_side_by_side_is_one_line_and_a_fault_among_them_is_none():
    errors = [UserError("no key"), UserError("no key")]
    assert str(explain(ExceptionGroup("tasks", errors))) == "no key"
    assert explain(ExceptionGroup("tasks", [*errors, ZeroDivisionError()])) is None


@pytest.mark.parametrize(
    "name", ["a=b.json", "a(1).json", "a,b.json", "a[1]{2}.json", "it's #1.json", 'say "hi"; é.json', "a\\b\\"]
)
def test_an_unquoted_path_is_shown_with_the_quotes_that_it_needs(name):
    """What the line says to type is one value, the path as it is."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from cso_lab.config.command_line import with_quotes

    (typed,) = shlex.split(with_quotes(f"data.path=/data/{name}"))
    assert OverridesParser.create().parse_overrides([typed])[0].value() == f"/data/{name}"


@pytest.mark.parametrize(
    "path",
    [
        "/data/a=b.json",
        pytest.param("/data/a(1).json", marks=pytest.mark.long),
        pytest.param("/data/a,b.json", marks=pytest.mark.long),
    ],
)
def test_the_command_line_says_how_to_quote_a_path(path):
    done = run_py(f"data.path={path}", "stages=[report]")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"""'data.path="{path}"'""" in done.stderr
    again = run_py(*shlex.split(f"""'data.path="{path}"'"""), "stages=[report]")
    assert f"data.path={path}: no such file" in again.stderr
