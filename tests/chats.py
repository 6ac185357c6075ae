"""Run folders of tiny models, and the chat in a process of its own."""

import sys

import forking
from omegaconf import OmegaConf
from project import ROOT
from trainings import config

from cso_lab.core.files import write_jsonl


def run_folder(folder, shared, *overrides):
    """Returns a run folder with what the chat reads of it: the resolved configuration."""
    folder.mkdir(parents=True)
    line = ("generation.max_new_tokens=40", "generation.constrain=format", *overrides)
    OmegaConf.save(config(shared, *line), folder / "config.yaml", resolve=True)
    return folder


def trained(folder, shared, *overrides):
    """Returns a run folder with a finished training of two steps on one row."""
    from cso_lab.core.records import SEEKER, Turn, prompt_messages
    from cso_lab.core.strategies import EXTES
    from cso_lab.training.train import train

    prompt = prompt_messages([Turn(SEEKER, "I feel low today.")], EXTES)
    row = {"prompt": prompt, "completion": [{"role": "assistant", "content": "(Affirmation) You are trying."}]}
    data = folder.parent / f"{folder.name}-data"
    data.mkdir(parents=True)
    write_jsonl(data / "sft.jsonl", [row] * 4)
    run_folder(folder, shared, "algo=sft", *overrides)
    train(config(shared, "algo=sft", *overrides), data, folder)
    return folder


def command(*arguments):
    """Returns the command line of a chat."""
    return [sys.executable, "-m", "cso_lab.chat", *map(str, arguments)]


def chat(*arguments, said=""):
    """Runs a conversation whose input is `said`, and returns the finished process."""
    return forking.run(command(*arguments), 300, said, cwd=ROOT)
