"""A user's package outside the project: classes, and a conf folder that names them."""

from pathlib import Path
from textwrap import dedent

PARTS = '''
from cso_lab.generation.decoding_strategies import Plain
from cso_lab.preferences.escpro import EscPro


class Reward:
    """Only the strategy counts."""

    best, worst = 1.0, -3.0

    def __init__(self, criterion):
        self.criterion = {"strategy": "S", "empathy": "E"}[criterion]

    def __call__(self, scores):
        return scores[self.criterion] - 3.0


class Builder(EscPro):
    """At most two paths."""

    def __call__(self, trees):
        return super().__call__(trees)[:2]


class Decoding(Plain):
    """Every reply is the same."""

    def __call__(self, openings, ask):
        return ["(Affirmation) my own words" for _ in ask(openings)]

'''
TRAINERS = '''
from trl import DPOTrainer


class Trainer(DPOTrainer):
    """Logs a number of its own."""

    def log(self, logs, *more):
        super().log({**logs, "mine": 1.0}, *more)
'''
CONF = {
    "backbone": """
        name: mine
        label: Mine
        family: llama
        path: null
        attn_implementation: sdpa
        random: {architecture: qwen, seed: 3}
        """,
    "algo": """
        # @package algorithm
        defaults: [dpo, _self_]
        name: mine
        label: Mine
        trainer: {_target_: mine.trainers.Trainer}
        """,
    "mcts/reward": """
        _target_: mine.parts.Reward
        criterion: strategy
        """,
    "preferences": """
        defaults: [escpro, _self_]
        name: mine
        builder: {_target_: mine.parts.Builder}
        """,
    "decoding": """
        name: mine
        label: Mine
        method: {_target_: mine.parts.Decoding}
        """,
    "table": """
        # @package _global_
        sweep: mine
        hydra: {mode: MULTIRUN, sweeper: {params: {algo: "sft,mine"}}}
        """,
}
CHOICES = tuple(f"{group}=mine" for group in CONF if group != "table")


def write_package(folder: Path, parts: str = PARTS, trainers: str = TRAINERS) -> Path:
    """Writes the package `mine` into `folder`. Returns its conf folder."""
    conf = folder / "mine" / "conf"
    for group, text in CONF.items():
        file = conf / group / "mine.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip(), encoding="utf-8")
    for name, text in {"__init__.py": "", "parts.py": parts, "trainers.py": trainers, "conf/__init__.py": ""}.items():
        (folder / "mine" / name).write_text(text, encoding="utf-8")
    return conf
