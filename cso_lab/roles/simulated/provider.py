"""The simulated players as a litellm provider: models simulated/seeker, /supporter, /strategist, /judge, /toxicity, and the judges of
replies (/judge_warm, ...), in this process.

They see what any model would see, the messages, and answer in the form the role asks for. What the same messages get depends
on `seed` alone.
"""

import json
import random
import re
from collections.abc import Sequence

from litellm import CustomLLM, ModelResponse, Usage
from litellm.llms.custom_llm import CustomLLMError

from cso_lab.core.records import SEEKER, SUPPORTER, Turn
from cso_lab.core.strategies import SETS, StrategySet
from cso_lab.roles.simulated import judges, seeker_state, toxicity

NOISE = 0.08  # standard deviation of what a player thinks of a fit
_LINE = re.compile(r"^(Seeker|Supporter)(?: \(([^)]*)\))?: (.*)$")


class SimulatedPlayers(CustomLLM):
    """litellm calls this for every model name that begins with simulated/."""

    names = ("seeker", "supporter", "strategist", "judge", "toxicity", *judges.TEMPERS)

    async def acompletion(self, model: str, messages: list, model_response: ModelResponse, optional_params: dict, **_):
        reply, said, answered = answer(model, messages, optional_params.get("seed"))
        model_response.choices[0].message.content = reply
        model_response.choices[0].finish_reason = "stop"
        model_response.model = f"simulated/{model}"
        model_response.usage = Usage(prompt_tokens=said, completion_tokens=answered, total_tokens=said + answered)
        return model_response

    def answer(self, name: str, messages: list, seed: int | None) -> tuple[str, int, int]:
        """See `InProcessModels`."""
        return answer(name, messages, seed)

    def litellm_handler(self) -> CustomLLM:
        """See `InProcessModels`."""
        return self


def answer(player: str, messages: list, seed: int | None) -> tuple[str, int, int]:
    """The reply, and the tokens of prompt and reply, which are words here. CustomLLMError when there is no such player."""
    if player not in _PLAYERS:
        raise CustomLLMError(404, f"no simulated player {player!r}; valid: {', '.join(_PLAYERS)}")
    reply = simulated_reply(player, messages, seed)
    return reply, sum(len(message["content"].split()) for message in messages), len(reply.split())


def simulated_reply(player: str, messages: list, seed: int | None) -> str:
    """What `player` (one of `SimulatedPlayers.names`) says to these messages."""
    prompt = messages[-1]["content"]
    return _PLAYERS[player](messages[0]["content"], prompt, random.Random(f"{seed}/{player}/{prompt}"))


def read_dialogue(prompt: str) -> tuple[list[Turn], str]:
    """The turns of the transcript in a prompt, and what stands after it. Strategies not shown are recognised by the line."""
    turns, rest = [], []
    for line in prompt.splitlines():
        if match := _LINE.match(line):
            name, strategy, text = match.groups()
            speaker = SEEKER if name == "Seeker" else SUPPORTER
            turns.append(Turn(speaker, text, None if speaker == SEEKER else strategy or _strategy_of(text)))
            rest.clear()
        elif turns:
            rest.append(line)
    return turns, "\n".join(rest)


def _strategy_of(text: str) -> str | None:
    """The strategy whose bank holds this line; None for a line from elsewhere, such as a gold one."""
    return _strategy_by_line().get(text)


def _strategy_by_line() -> dict[str, str]:
    if not _BY_LINE:
        _BY_LINE.update({line: strategy for strategy, bank in seeker_state.lines()["supporter"].items() for line in bank})
    return _BY_LINE


_BY_LINE: dict[str, str] = {}
# ESConv's strategies that speak with the lines of an ExTES one.
_SPEAKS_LIKE = {
    "Reflection of Feelings": "Empathetic Statements",
    "Affirmation and Reassurance": "Affirmation",
    "Providing Suggestions": "Collaborative Planning",
    "Information": "Share Information",
}


def _seeker(system: str, prompt: str, chance: random.Random) -> str:
    turns, _ = read_dialogue(prompt)
    state = seeker_state.read(turns, _names_in(turns))
    bank = seeker_state.lines()["seeker"]
    # People leave when they have got something out of it, and at last when they have not.
    wants_to_leave = state.turns - seeker_state.USUAL_LENGTH + 2 + (state.mood / max(state.turns, 1) - 0.5) * 3 - state.strain
    if state.turns > 3 and chance.random() < wants_to_leave / 6:
        return f"{_pick(bank['closing'], turns, chance)} </end/>" if chance.random() < 0.8 else "</end/>"
    if state.strain > 1.0 and state.last_fit < seeker_state.POOR:
        return _pick(bank["guarded"], turns, chance)
    return _pick(bank[seeker_state.next_need(turns, state, chance)], turns, chance)


def _supporter(system: str, prompt: str, chance: random.Random) -> str:
    turns, rest = read_dialogue(prompt)
    strategy = _asked_strategy(rest)
    banks = seeker_state.lines()["supporter"]
    return _pick(banks[_SPEAKS_LIKE.get(strategy, strategy)], turns, chance)


def _strategist(system: str, prompt: str, chance: random.Random) -> str:
    turns, _ = read_dialogue(prompt)
    names = _names_in_rubric(system).names
    fit = seeker_state.relative(seeker_state.fits(turns), names)
    return json.dumps({name: _scaled(fit[name] + chance.gauss(0, NOISE), 10) for name in names})


def _judge(system: str, prompt: str, chance: random.Random) -> str:
    """Rates the last supporter turn against the state before it; a strained seeker takes less from any reply."""
    turns, _ = read_dialogue(prompt)
    last = max(i for i, turn in enumerate(turns) if turn.speaker == SUPPORTER)
    before, strategy = turns[:last], turns[last].strategy
    state = seeker_state.read(before, _names_in(turns))
    # 1 where the strategy is as good as the best; what misses the need falls off steeply.
    fit = state.fit.get(strategy, seeker_state.POOR) + chance.gauss(0, NOISE)
    met = min(fit / 0.85, 1.0) - 0.25 * min(state.strain, 2.0)
    warm = strategy in ("Emotional Validation", "Empathetic Statements", "Avoid Judgment and Criticism")
    useful = strategy in ("Collaborative Planning", "Share Information", "Providing Suggestions", "Information")
    said_before = any(turn.text == turns[last].text for turn in before)
    scores = {
        "empathy": 3.6 * met + 0.4 * warm,
        "information": 1.4 + 1.0 * met * useful + chance.gauss(0, 0.4),
        "humanoid": 3.2 - 2.0 * said_before + chance.gauss(0, 0.4),
        "strategy": 4 * met,
    }
    return json.dumps({name: _scaled(score / 4, 4) for name, score in scores.items()})


def _toxicity(system: str, prompt: str, chance: random.Random) -> str:
    """Rates the one utterance in the prompt."""
    return json.dumps(toxicity.rate(prompt))


def _pair_judge(name: str):
    """A judge of replies that stand after the dialogue."""

    def reply(system: str, prompt: str, chance: random.Random) -> str:
        turns, rest = read_dialogue(prompt)
        return judges.answer(judges.TEMPERS[name], system, turns, rest, _names_in(turns), chance)

    return reply


_PLAYERS = {
    "seeker": _seeker,
    "supporter": _supporter,
    "strategist": _strategist,
    "judge": _judge,
    "toxicity": _toxicity,
    **{name: _pair_judge(name) for name in judges.TEMPERS},
}


def _pick(bank: Sequence[str], turns: Sequence[Turn], chance: random.Random) -> str:
    """A line that has not been said yet, while there is one."""
    said = {turn.text for turn in turns}
    return chance.choice([line for line in bank if line not in said] or list(bank))


def _scaled(share: float, highest: int) -> int:
    return round(min(max(share, 0.0), 1.0) * highest)


def _asked_strategy(rest: str) -> str:
    """The strategy named after the transcript in the supporter's prompt; the first one where several are."""
    named = {rest.find(name): name for name in seeker_state.MEETS if name in rest}
    if not named:
        raise CustomLLMError(400, "the simulated supporter finds no known strategy after the dialogue in its prompt")
    return named[min(named)]


def _names_in_rubric(system: str) -> StrategySet:
    """The strategy set that the strategist's prompt lists."""
    for strategies in SETS.values():
        if all(name in system for name in strategies.names):
            return strategies
    raise CustomLLMError(400, "the simulated strategist finds no known set of strategies in its prompt")


def _names_in(turns: Sequence[Turn]) -> tuple[str, ...]:
    """The names of the set most of the dialogue's strategies belong to."""
    used = [turn.strategy for turn in turns if turn.strategy]
    return max(SETS.values(), key=lambda strategies: sum(name in strategies.names for name in used)).names
