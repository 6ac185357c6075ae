"""Rewards of replies that a model wrote in training, worked out by hand, and the judge they may ask."""

import pytest
from fakes import FakeOpenAI
from omegaconf import OmegaConf
from project import composed
from small_search import ABC, REWARD

from cso_lab.core.errors import MissingKey, UserError
from cso_lab.core.files import read_jsonl
from cso_lab.core.records import SEEKER, SUPPORTER, Turn, prompt_messages
from cso_lab.core.strategies import EXTES
from cso_lab.llm.budget import BudgetSpent
from cso_lab.pipeline.train import check_judge
from cso_lab.training.rewards.judge import RoleJudge
from cso_lab.training.rewards.reward_functions import reward_functions, used_rewards
from cso_lab.training.rewards.rewards import JudgeScore, PreferredStrategy, TreeValue, WellFormed
from cso_lab.training.rewards.rollout import rollout

HISTORY = (Turn(SEEKER, "I cannot sleep."), Turn(SUPPORTER, "Why?", "C"), Turn(SEEKER, "Work."))
ROW = {"prompt": prompt_messages(HISTORY, ABC), "preferred": ["A", "B"], "values": {"A": 0.9, "C": -1.5}, "dialogue": "d"}
# Reply, then: preferred strategy, form, the tree's Q.
REPLIES = {
    "(A) That is hard.": (1.0, 1.0, 0.9),
    "(B) You can do it.": (1.0, 1.0, None),
    "(C) Sleep more.": (0.0, 1.0, -1.5),
    "(A)": (1.0, 0.0, 0.9),
    "That is hard.": (0.0, 0.0, None),
    "(D) That is hard.": (0.0, 0.0, None),
    "": (0.0, 0.0, None),
}


def no_judge(rollouts):
    raise AssertionError("the judge is not asked")


def replies(*texts):
    return [rollout(ROW, text, ABC) for text in texts]


def test_strategy_form_and_value_of_each_reply():
    rewards = [reward(replies(*REPLIES), no_judge) for reward in (PreferredStrategy(), WellFormed(), TreeValue())]
    assert list(zip(*rewards, strict=True)) == list(REPLIES.values())


def test_a_reply_knows_the_conversation_before_it():
    [reply] = replies("(A) That is hard.")
    assert (reply.history, reply.strategy, reply.text, reply.dialogue) == (HISTORY, "A", "That is hard.", "d")


def test_the_judge_is_asked_for_replies_with_a_text_and_its_scores_count_as_in_the_search():
    asked = []

    def judge(rollouts):
        asked.extend(reply.text for reply in rollouts)
        return [dict.fromkeys("EIHS", 4), None, {"E": 0, "I": 0, "H": 0, "S": 3}]

    found = JudgeScore(REWARD)(replies("(A) One.", "(A)", "Two.", "(B) Three."), judge)
    assert found == [1.0, -3.0, None, pytest.approx(-0.9)]
    assert asked == ["One.", "Two.", "Three."]


def extes_row():
    history = (Turn(SEEKER, "I had a hard week."),)
    return {"prompt": prompt_messages(history, EXTES), "preferred": ["Affirmation"], "values": {}, "dialogue": "ann"}


def test_the_functions_have_the_rewards_names_and_the_judge_of_the_roles_answers_once(tmp_path):
    cfg = composed("algo=grpo")
    functions = {one.__name__: one for one in reward_functions(cfg, [extes_row()], EXTES, tmp_path)}
    assert list(functions) == ["strategy", "form", "judge", "tree"]
    texts = ["(Affirmation) You got through it.", "(Share Information) Sleep has stages."]
    assert functions["strategy"](completions=texts, row=[0, 0], prompts=["", ""], other=1) == [1.0, 0.0]
    first = functions["judge"](completions=texts, row=[0, 0])
    assert all(-3 <= reward <= 1 for reward in first)
    calls = read_jsonl(tmp_path / "calls.jsonl")
    assert [(call["role"], call["dialogue"]) for call in calls] == [("judge", "ann")] * 2
    assert functions["judge"](completions=texts, row=[0, 0]) == first
    assert read_jsonl(tmp_path / "calls.jsonl") == calls


def test_processes_share_the_budget_of_the_judge(tmp_path):
    cfg = composed("algo=grpo", "roles.budget.calls=5")
    roles = OmegaConf.to_container(cfg.roles, resolve=True)
    texts = [f"(Affirmation) You got through it {count} times." for count in ("two", "three", "four")]
    rollouts = [rollout(extes_row(), text, EXTES) for text in texts]
    assert len(RoleJudge(roles, EXTES, 0, tmp_path / "alone")(rollouts)) == 3
    with pytest.raises(BudgetSpent, match="roles.budget.calls=2 is spent, which is the share of each of 2 processes"):
        RoleJudge(roles, EXTES, 0, tmp_path / "0", processes=2)(rollouts)
    assert len(read_jsonl(tmp_path / "0" / "calls.jsonl")) == 2


def test_a_judge_that_gives_no_scores_leaves_the_reply_without_a_reward(tmp_path, capsys):
    with FakeOpenAI("I would rather not.") as server:
        line = [f"roles.{role}.model=openai/m" for role in ("seeker", "supporter", "strategist", "judge")]
        cfg = composed("algo=grpo", "roles=server", f"roles.api_base={server.api_base}", "roles.max_attempts=1", *line)
        judge = RoleJudge(OmegaConf.to_container(cfg.roles, resolve=True), EXTES, 0, tmp_path)
        assert judge([rollout(extes_row(), "(Affirmation) You got through it.", EXTES)]) == [None]
    assert "the judge gave no scores for a reply" in capsys.readouterr().err


def test_a_judge_that_cannot_be_asked_is_named_before_the_training(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    check_judge(composed("algo=grpo"))
    check_judge(composed("algo=grpo", "roles=openai", "algorithm.weights.judge=0"))
    check_judge(composed("algo=dpo", "roles=openai"))
    with pytest.raises(MissingKey, match="openai/gpt-4o-mini as judge needs OPENAI_API_KEY"):
        check_judge(composed("algo=grpo", "roles=openai"))
    with pytest.raises(UserError, match="roles.judge.model=mine: names no provider"):
        check_judge(composed("algo=grpo", "roles.judge.model=mine"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["algorithm.weights.judge=often"], "algorithm.weights.judge=often: should be a number"),
        (["+algorithm.weights.length=1"], "algorithm.weights.length is of no reward: give algorithm.rewards.length, or one of"),
        (["+algorithm.rewards.length._target_=x.Y"], "give algorithm.weights.length=NUMBER"),
        ([f"algorithm.weights.{name}=0" for name in ("strategy", "form", "judge", "tree")], "algo=grpo has no reward"),
    ],
)
def test_rewards_and_weights_belong_together(line, message):
    with pytest.raises(UserError, match=message):
        used_rewards(composed("algo=grpo", *line).algorithm)


def test_a_reward_of_weight_zero_is_not_used():
    assert used_rewards(composed("algo=grpo", "algorithm.weights.judge=0").algorithm) == {"strategy": 1, "form": 1, "tree": 1}
