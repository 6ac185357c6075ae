"""The simulated players, asked through litellm like any other model."""

import asyncio
import random
from functools import cache
from pathlib import Path

import pytest
import yaml
from project import option
from small_search import REWARD, mcts

from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, Turn
from cso_lab.core.strategies import ESCONV, EXTES
from cso_lab.corpora import load, split
from cso_lab.llm.client import Client
from cso_lab.roles.role_players import RolePlayers
from cso_lab.search.mcts import MCTS

CONF = Path(__file__).parents[2] / "conf"
OPENING = (
    Turn(SEEKER, "I lost my job last week."),
    Turn(SUPPORTER, "That must have come as a shock.", "Empathetic Statements"),
)


def players(strategies=EXTES, seed=0, max_concurrency=8) -> RolePlayers:
    config = {
        role: yaml.safe_load((CONF / "roles" / role / "default.yaml").read_text()) | {"model": f"simulated/{role}"}
        for role in ("seeker", "supporter", "strategist", "judge")
    }
    return RolePlayers(config, Client(max_concurrency=max_concurrency, timeout=20, max_attempts=2), strategies, seed)


def search(roles, strategies=EXTES, iterations=4) -> MCTS:
    settings = {"prior_temperature": 5.0, "cache_replies": True, "min_iterations": iterations, "max_iterations": iterations}
    return mcts(roles, strategies, **settings)


@cache
def sample() -> tuple[Dialogue, ...]:
    data = option("data", "sample")
    return split(load(data).dialogues, data.test_share)[0]


def dialogue_with(*turns: Turn) -> Dialogue:
    return Dialogue("d", "Job loss", "I lost my job", turns)


def replies(roles: RolePlayers, history: tuple[Turn, ...], strategy: str = "Affirmation") -> tuple:
    """The replies of strategist, supporter, judge and seeker."""

    async def ask():
        dialogue = dialogue_with(*history)
        return (
            await roles.strategist(dialogue, history, ""),
            await roles.supporter(dialogue, history, strategy, ""),
            await roles.judge(dialogue, history[:2], ""),
            await roles.seeker(dialogue, history[:2], ""),
        )

    return asyncio.run(ask())


HISTORY = (*OPENING, Turn(SEEKER, "Yes. I don't know how to tell my wife."))


def test_the_same_seed_gives_the_same_replies_and_other_seeds_others():
    by_seed = [replies(players(seed=seed), HISTORY) for seed in (0, 0, 1, 2, 3)]
    assert by_seed[0] == by_seed[1]
    for role in range(4):
        assert len({str(answers[role]) for answers in by_seed}) > 1, role


@pytest.mark.parametrize("strategies", [EXTES, ESCONV], ids=lambda strategies: strategies.name)
def test_every_answer_has_its_form(strategies):
    history = (OPENING[0], Turn(SUPPORTER, OPENING[1].text, strategies.names[1]), HISTORY[2])
    scores, words, judged, seeker = replies(players(strategies), history, strategies.names[0])
    assert tuple(scores) == strategies.names and all(0 <= score <= 10 for score in scores.values())
    assert words and set(judged) == set("EIHS")
    assert seeker.text and not seeker.end


def opinions(utterance: str, strategies=EXTES, seeds=5) -> dict[str, float]:
    """The strategist's mean scores after `utterance`."""
    history = (*OPENING, Turn(SEEKER, utterance)) if strategies is EXTES else (OPENING[0], Turn(SEEKER, utterance))

    async def ask():
        by_seed = [players(strategies, seed) for seed in range(seeds)]
        return [await role_players.strategist(dialogue_with(*history), history, "") for role_players in by_seed]

    answers = asyncio.run(ask())
    return {name: sum(answer[name] for answer in answers) / seeds for name in strategies.names}


BLAMED = "It's all my fault. I'm so ashamed, you must think I'm pathetic."
NEEDS = [
    (BLAMED, "Avoid Judgment and Criticism"),
    ("I'll always be a failure. Nothing ever works out for me, I ruin everything.", "Reframe Negative Thoughts"),
    ("What should I do now? I need a plan for the next step.", "Collaborative Planning"),
    ("Is this normal? How does depression work, what are the symptoms?", "Share Information"),
]


@pytest.mark.parametrize(("utterance", "best"), NEEDS)
def test_the_strategist_reads_the_need_off_the_words(utterance, best):
    scores = opinions(utterance)
    assert max(scores, key=scores.get) == best


def test_the_strategist_reads_the_need_in_esconvs_strategies_too():
    scores = opinions("What should I do now? I need a plan for the next step.", ESCONV)
    assert scores["Providing Suggestions"] > scores["Others"] and scores["Providing Suggestions"] > scores["Self-disclosure"]


def judgements(strategy: str, seeds=5) -> float:
    """The mean reward, by the judge's scores, of the same words in `strategy` after a seeker has blamed herself."""
    history = (*OPENING, Turn(SEEKER, BLAMED), Turn(SUPPORTER, "I hear you.", strategy))

    async def ask():
        return [REWARD(await players(seed=seed).judge(dialogue_with(*history), history, "")) for seed in range(seeds)]

    return sum(asyncio.run(ask())) / seeds


def test_the_judge_agrees_with_the_need():
    rewards = {name: judgements(name) for name in EXTES.names}
    assert max(rewards, key=rewards.get) == "Avoid Judgment and Criticism"
    assert rewards["Avoid Judgment and Criticism"] > 0 > rewards["Share Information"]


class Contrary:
    """The same players, with a strategist whose scores are inverted."""

    def __init__(self, role_players: RolePlayers):
        self.seeker, self.supporter, self.judge, self._strategist = (
            role_players.seeker,
            role_players.supporter,
            role_players.judge,
            role_players.strategist,
        )

    async def strategist(self, dialogue, history, draw):
        return {name: 10 - score for name, score in (await self._strategist(dialogue, history, draw)).items()}


def mean_rollout(roles, dialogues) -> float:
    """Mean reward of one simulation from every gold node that is not the end."""

    async def rewards():
        searching, outcomes = search(roles), []
        for dialogue in dialogues:
            tree = await searching.init_from_gold(dialogue)
            for node in tree.nodes:
                if node.gold and not node.end:
                    outcomes.append((await searching.evaluate_leaf(dialogue, node)).reward)
        return outcomes

    values = asyncio.run(rewards())
    return sum(values) / len(values)


def test_a_rollout_of_good_strategies_earns_more_than_one_of_bad_ones():
    dialogues = sample()[:3]
    good, bad = mean_rollout(players(), dialogues), mean_rollout(Contrary(players()), dialogues)
    assert good > 0.3 and bad < -1 and good - bad > 1.5


def test_the_tree_does_not_depend_on_how_many_calls_are_under_way():
    dialogues = sample()[:2]

    def trees(max_concurrency):
        searching = search(players(max_concurrency=max_concurrency), iterations=5)

        async def all_of_them():
            return await asyncio.gather(*(searching.search(dialogue) for dialogue in dialogues))

        return [tree.to_json() for tree in asyncio.run(all_of_them())]

    assert trees(1) == trees(16)


def test_a_dialogue_in_esconvs_strategies_can_be_searched():
    rng, turns = random.Random(0), []
    for i, turn in enumerate(sample()[0].turns):
        turns.append(turn if i % 2 == 0 else Turn(SUPPORTER, turn.text, rng.choice(ESCONV.names)))
    tree = asyncio.run(search(players(ESCONV), ESCONV, iterations=3).search(Dialogue("e", "", "", tuple(turns))))
    assert tree.root.n == 103
    assert {node.strategy for node in tree.nodes[1:]} == set(ESCONV.names)


def test_the_best_strategy_agrees_with_the_gold_one_more_often_than_chance():
    roles, dialogues = players(), sample()[:25]

    async def trees_from_gold():
        return await asyncio.gather(*(search(roles).init_from_gold(dialogue) for dialogue in dialogues))

    gold = [node for tree in asyncio.run(trees_from_gold()) for node in tree.nodes if node.gold and node.parent]
    agree = sum(node is max(node.parent.children, key=lambda child: child.prior) for node in gold)
    assert len(gold) > 100
    assert agree / len(gold) > 0.4  # chance: 1/8


def test_every_seeker_leaves_in_the_end():
    async def talk():
        roles, dialogue, history = players(), dialogue_with(OPENING[0]), (OPENING[0],)
        for i in range(30):
            scores = await roles.strategist(dialogue, history, "")
            strategy = max(scores, key=scores.get)
            history += (Turn(SUPPORTER, await roles.supporter(dialogue, history, strategy, ""), strategy),)
            reply = await roles.seeker(dialogue, history, "")
            if reply.end:
                return i + 1
            history += (Turn(SEEKER, reply.text),)

    assert 3 < asyncio.run(talk()) <= 15


def judged_turns(model: str = "simulated/judge", noise: float = 0.0, seed: int = 0) -> dict[str, list[dict]]:
    """The judge's scores, by strategy, of a turn in it after each of many openings."""
    config = {
        role: yaml.safe_load((CONF / "roles" / role / "default.yaml").read_text()) | {"model": f"simulated/{role}"}
        for role in ("seeker", "supporter", "strategist", "judge")
    }
    config["judge"] |= {"model": model, "noise": noise}
    roles = RolePlayers(config, Client(max_concurrency=8, timeout=20, max_attempts=2), EXTES, seed)

    async def ask(strategy: str):
        return [
            await roles.judge(dialogue, (*dialogue.turns[:1], Turn(SUPPORTER, f"I hear you. {strategy}", strategy)), "")
            for dialogue in sample()[:12]
            if dialogue.turns[0].speaker == SEEKER
        ]

    return {strategy: asyncio.run(ask(strategy)) for strategy in EXTES.names}


def mean(scores: list[dict]) -> float:
    return sum(score["S"] for score in scores) / len(scores)


def test_noise_on_the_judge_is_of_the_question_and_grows_with_its_standard_deviation():
    exact, little, much = (judged_turns(noise=noise) for noise in (0.0, 0.4, 4.0))
    assert much == judged_turns(noise=4.0) != judged_turns(noise=4.0, seed=1)
    assert all(0 <= value <= 4 and isinstance(value, int) for scores in much.values() for s in scores for value in s.values())

    def difference(noisy: dict) -> int:
        pairs = zip(sum(exact.values(), []), sum(noisy.values(), []), strict=True)
        return sum(abs(one[key] - other[key]) for one, other in pairs for key in one)

    assert 0 < difference(little) < difference(much)


def test_the_judge_of_noise_scores_as_widely_as_the_judge_and_knows_no_strategy():
    judge, noise = judged_turns(), judged_turns("simulated/judge_noise")
    spread_of_judge, spread_of_noise = (
        max(map(mean, scores.values())) - min(map(mean, scores.values())) for scores in (judge, noise)
    )
    assert spread_of_noise < 0.5 * spread_of_judge
    assert {score["S"] for scores in noise.values() for score in scores} == {0, 1, 2, 3, 4}
