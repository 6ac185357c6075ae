"""What README.md says is there: its commands compose, run or exist, and so do the files it names."""

import re
import shlex
import subprocess
import sys

import pytest
from omegaconf import OmegaConf
from project import ROOT, jobs_of, without_hydra

from cso_lab.checks import check
from cso_lab.config.command_line import prepared

README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^```\w*\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
INLINE = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", README)
# The whole lines of fences, a line that ends in a backslash and the next being one, without what stands beside the command.
LINES = [re.split(r"\s{2,}", line)[0] for block in FENCED for line in re.sub(r" *\\\n *", " ", block).splitlines()]
COMMANDS = sorted({line for line in [*LINES, *INLINE] if re.match(r"(python|make)\b", line)})
# Words in capitals that the reader replaces.
PLACEHOLDER = re.compile(r"\b(FILE|NAME|HOST|PORT|ID_OR_FOLDER|DIR)\b")
(TREE,) = (block for block in FENCED if block.startswith("run.py "))


def of(program: str) -> list[str]:
    """The README's commands that start with `program`."""
    commands = [command for command in COMMANDS if command == program or command.startswith(f"{program} ")]
    assert commands, f"README.md shows no {program}"
    return commands


def overrides(command: str) -> list[str]:
    """The `key=value` arguments of a `python run.py` line."""
    return prepared([word for word in shlex.split(command) if re.match(r"[+~]{0,2}[\w/.@]+=", word)])


def test_the_readmes_commands_are_found():
    assert "make demo" in of("make") and "make test" in of("make")
    assert "python run.py backbone=gemma algo=kto mode=lora" in of("python run.py")
    assert [len(overrides(command)) for command in of("python run.py") if "roles.api_base" in command] == [10]


def sweeps_apart(commands: list[str]) -> list:
    """The paper's tables are many cells each, and composing them all takes long."""
    return [pytest.param(line, marks=pytest.mark.long) if "data.path=FILE hardware=" in line else line for line in commands]


@pytest.mark.parametrize("command", sweeps_apart(of("python run.py")))
def test_a_command_line_composes(command):
    known = {"python", "run.py", "-m", "--help", "--cfg", "job", "--resolve"}
    given = overrides(command)
    assert set(prepared(shlex.split(command))) - known == set(given)
    for job in map(without_hydra, jobs_of(*given)):
        assert OmegaConf.to_container(job, resolve=True)
        if not PLACEHOLDER.search(command):
            check(job)


@pytest.mark.parametrize("command", of("make"))
def test_a_make_target_exists(command):
    done = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", sorted({command.split()[2] for command in of("python -m")}))
def test_a_module_that_is_run_explains_itself(module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


def test_everything_in_the_tree_exists():
    folder, named = ROOT, 0
    for line in TREE.splitlines():
        name, _, said = line.strip().partition(" ")
        parent = folder if line.startswith(" ") else ROOT
        assert (parent / name).exists(), line
        if not line.startswith(" "):
            folder = ROOT / name
        for file in re.findall(r"[\w/]+\.(?:py|yaml)\b", said):
            assert (parent / file).exists() or (parent / name / file).exists(), f"{file}: {line}"
            named += 1
    assert named


def test_every_room_has_its_line_in_the_tree():
    rooms = {f"{path.parent.name}/" for path in (ROOT / "cso_lab").glob("*/__init__.py")}
    assert rooms <= {line.split()[0] for line in TREE.splitlines()}


def test_every_file_named_in_the_text_exists():
    paths = [text for text in INLINE if re.fullmatch(r"(conf|cso_lab|experiments|tests)/[\w/.]+", text)]
    paths = [path for path in paths if not PLACEHOLDER.search(path)]
    assert len(paths) >= 3
    assert [path for path in paths if not (ROOT / path).exists()] == []
