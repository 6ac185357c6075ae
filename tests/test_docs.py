"""README.md, CONTRIBUTING.md and docs/: their commands compose, run or exist, and so do the files and pages they name."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from project import ROOT, composed, jobs_of, without_hydra
from test_imports import ORDER

import cso_lab
from cso_lab.config.command_line import prepared
from cso_lab.judging.settings import load_settings
from cso_lab.pipeline.check import check

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", *DOCS]
# Words in capitals that the reader replaces.
PLACEHOLDER = re.compile(r"\b(FILE|NAME|HOST|PORT|ID_OR_FOLDER|DIR|CHOICE)\b")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text_of(page))


def inline_code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def fenced(page: Path, language: str) -> list[str]:
    return [block for kind, block in FENCE.findall(text_of(page)) if kind == language]


def shell_lines(page: Path) -> list[str]:
    """The lines of the page's shell blocks; one that ends in a backslash goes on in the next."""
    return [line for block in fenced(page, "bash") for line in re.sub(r" *\\\n *", " ", block).splitlines() if line.strip()]


@dataclass(frozen=True)
class Command:
    """A command line of a page, as words without its comment."""

    page: Path
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.name}: {shlex.join(self.words)}"

    @property
    def overrides(self) -> list[str]:
        """The `key=value` arguments."""
        return prepared([word for word in self.words if re.match(r"[+~]{0,2}[\w/.@]+=", word)])

    @property
    def config_dir(self) -> str | None:
        return self.words[self.words.index("--config-dir") + 1] if "--config-dir" in self.words else None


def commands() -> list[Command]:
    """Every command of every page that starts with `python` or `make`, once."""
    found = {}
    for page in PAGES:
        for line in [*shell_lines(page), *inline_code(page)]:
            if re.match(r"(python|make)\b", line):
                words = tuple(shlex.split(line, comments=True))
                found.setdefault(words, Command(page, words))
    return list(found.values())


def starting_with(*words: str) -> list[Command]:
    return [command for command in commands() if command.words[: len(words)] == words]


def example_in(page: Path, folder: Path) -> None:
    """Write the files of the page's worked example into `folder`: Python and YAML blocks that open with `# PATH`."""
    for language in ("python", "yaml"):
        for block in fenced(page, language):
            name = re.match(r"# (\S+)\n", block)
            assert name, f"{page.name}: an example that does not say in which file it is:\n{block}"
            (folder / name[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / name[1]).write_text(block, encoding="utf-8")


def test_the_commands_are_found():
    assert ("make", "demo") in {command.words for command in commands()}
    assert len(starting_with("python", "run.py")) > 30
    served = [command for command in starting_with("python", "run.py") if "roles=server" in command.words]
    assert [len(command.overrides) for command in served] == [10]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_shell_line_is_a_command_that_is_tested(page):
    assert [line for line in shell_lines(page) if not re.match(r"(python (run\.py|-m)|make)\b", line)] == []


def sweeps_apart(lines: list[Command]) -> list:
    """The paper's tables are many cells each, and composing them all takes long."""
    return [
        pytest.param(line, id=str(line), marks=pytest.mark.long if re.search(r"\+(table|figure)=", str(line)) else ())
        for line in lines
    ]


@pytest.mark.parametrize("command", sweeps_apart(starting_with("python", "run.py")))
def test_a_command_line_composes(command, tmp_path, monkeypatch):
    known = {"python", "run.py", "-m", "--help", "--cfg", "job", "--resolve", "--config-dir", command.config_dir}
    overrides = command.overrides
    assert set(prepared(command.words)) - known == set(overrides)
    if command.config_dir:
        example_in(command.page, tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
            monkeypatch.delitem(sys.modules, name)  # another page's example
        overrides = [*overrides, f"hydra.searchpath=[pkg://experiments,file://{tmp_path / command.config_dir}]"]
    sweeps = "-m" in command.words or re.search(r"\+(table|figure)=", str(command))
    for job in map(without_hydra, jobs_of(*overrides)) if sweeps else [composed(*overrides)]:
        assert OmegaConf.to_container(job, resolve=True)
        if not PLACEHOLDER.search(str(command)):
            check(job)


@pytest.mark.long
@pytest.mark.parametrize("page", [README, ROOT / "docs" / "extending.md"], ids=lambda page: page.name)
def test_a_worked_example_runs(page, tmp_path):
    example_in(page, tmp_path)
    command = next(command for command in commands() if command.page == page and command.config_dir)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *command.words[2:]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("multirun_outputs/shared/dataset/*/preferences/pairs.jsonl"))


@pytest.mark.parametrize("command", starting_with("make"), ids=str)
def test_a_make_target_exists(command):
    done = subprocess.run([*command.words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", sorted({command.words[2] for command in starting_with("python", "-m")}))
def test_a_module_has_the_commands_and_options_that_are_shown(module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
    for command in starting_with("python", "-m", module):
        arguments = command.words[3:]
        options = [word for word in arguments if word.startswith("--")]
        first = next((i for i, word in enumerate(arguments) if not re.fullmatch(r"[a-z]+", word)), len(arguments))
        assert [word for word in [*arguments[:first], *options] if word not in done.stdout] == [], command
        if module == "cso_lab.judging":
            assert load_settings(command.overrides)
        elif command.overrides:
            assert jobs_of(*command.overrides)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"https?://", target):
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            assert file.is_file(), f"{page.name}: {target}"
            headings = re.findall(r"^#+ (.*)$", prose(file), flags=re.MULTILINE)
            assert not anchor or anchor in {_anchor(heading) for heading in headings}, f"{page.name}: {target}"


def _anchor(heading: str) -> str:
    """The name by which a heading is linked on the usual code hosts."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_readme_links_every_page():
    linked = set(re.findall(r"\]\(([^)\s#]+)", prose(README)))
    assert {page.relative_to(ROOT).as_posix() for page in [*DOCS, ROOT / "CONTRIBUTING.md"]} <= linked


def test_the_readme_stays_short():
    lines = text_of(README).splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 140] == []


def test_the_readme_maps_every_package():
    packages = {path.parent.name for path in (ROOT / "cso_lab").glob("*/__init__.py")}
    (tree,) = (block for block in fenced(README, "text") if "cso_lab/" in block)
    mapped = re.findall(r"^  (\w+)/", tree, flags=re.MULTILINE)
    assert set(mapped) == packages
    assert mapped == list(ORDER), "the map says that packages import those above them"
    top = re.findall(r"^(\w[\w.]*)", tree, flags=re.MULTILINE)
    assert [name for name in top if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_named_in_the_text_exists(page):
    paths = [text for text in inline_code(page) if re.fullmatch(r"(conf|cso_lab|experiments|tests|docs|\.ci)/[\w/.]+", text)]
    assert [path for path in paths if not PLACEHOLDER.search(path) and not (ROOT / path).exists()] == []


@pytest.fixture(scope="module")
def configurations() -> list:
    """Composed choices that between them have every key the pages name."""
    served = (
        "backbone=gpt_4o",
        "algo=base",
        "roles=openai",
        "toxicity=judge",
        "conversation/seeker=llm",
        "conversation/harm=llm",
    )
    others = ("algo=dpo_after_sft", "data=escpro", "data.path=FILE", "preferences=random", "hardware=slurm", "tracking=wandb")
    variants = (("algo=dpo_sft",), ("algo=dpo_strategy",), ("algo=dpo_decoupled",), ("algo=grpo",))
    return [jobs_of(*overrides)[0] for overrides in ((), served, others, *variants)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_key_named_in_the_text_exists(page, configurations):
    names = {name for text in inline_code(page) if (name := re.match(r"'?([a-z_]+(\.\w+)+)(=|$)", text))}
    keys = {name[1] for name in names if not re.search(r"\.(json|jsonl|md|html|csv|tex|yaml|py|sh)$", name[1])}
    keys = {key for key in keys if key.split(".")[0] in configurations[0] and not key.startswith("hydra.")}
    assert {key for key in keys if not any(_has(configuration, key) for configuration in configurations)} == set()


def _has(configuration, key: str) -> bool:
    node, _, name = key.rpartition(".")
    parent = OmegaConf.select(configuration, node)
    return parent is not None and name in parent


def test_the_citation_and_the_licence_are_those_of_the_package():
    citation = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    assert citation["version"] == cso_lab.__version__
    assert f"license = {citation['license']}" in text_of(ROOT / "setup.cfg")
    assert "Apache License\n" in text_of(ROOT / "LICENSE")
    (paper,) = citation["references"]
    assert paper["title"] in " ".join(text_of(README).split())
