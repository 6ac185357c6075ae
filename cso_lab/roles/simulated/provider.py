"""The simulated players as in-process models: simulated/seeker, /supporter, /strategist, /judge, /toxicity, a judge whose scores say
nothing (/judge_noise), and the judges of replies and conversations (/judge_warm and so on).

Like any model they get only the messages, and they reply in the form that the role prescribes. Their replies are a function of the
messages and the seed.
"""

import json
import random
import re
from collections.abc import Callable, Sequence

from litellm import CustomLLM, ModelResponse, Usage
from litellm.llms.custom_llm import CustomLLMError

from cso_lab.core.records import SEEKER, SUPPORTER, Turn
from cso_lab.core.strategies import SETS, StrategySet
from cso_lab.roles.simulated import judges, seeker_state, toxicity

NOISE = 0.08  # standard deviation of the fit that a player perceives
_CONVERSATION = re.compile(r"^Conversation [AB]:$", re.MULTILINE)
_LINE = re.compile(r"^(Seeker|Supporter)(?: \(([^)]*)\))?: (.*)$")


class SimulatedPlayers(CustomLLM):
    """The models whose names begin with simulated/, for the client (`InProcessModels`) and for litellm (`CustomLLM`)."""

    names = ("seeker", "supporter", "strategist", "judge", "judge_noise", "toxicity", *judges.JUDGE_PROFILES)

    async def acompletion(self, model: str, messages: list, model_response: ModelResponse, optional_params: dict, **_):
        """Returns `model_response` with the reply and its usage, as litellm expects it."""
        reply, prompt_tokens, reply_tokens = answer(model, messages, optional_params.get("seed"))
        model_response.choices[0].message.content = reply
        model_response.choices[0].finish_reason = "stop"
        model_response.model = f"simulated/{model}"
        model_response.usage = Usage(
            prompt_tokens=prompt_tokens, completion_tokens=reply_tokens, total_tokens=prompt_tokens + reply_tokens
        )
        return model_response

    def answer(self, name: str, messages: list, seed: int | None) -> tuple[str, int, int]:
        """See `InProcessModels`."""
        return answer(name, messages, seed)

    def litellm_handler(self) -> CustomLLM:
        """See `InProcessModels`."""
        return self


def answer(player: str, messages: list, seed: int | None) -> tuple[str, int, int]:
    """Returns (reply, number of prompt tokens, number of reply tokens), where tokens are words.

    Raises CustomLLMError if there is no such player or if it cannot read the prompt.
    """
    if player not in _PLAYERS:
        raise CustomLLMError(404, f"no simulated player {player!r}; valid: {', '.join(_PLAYERS)}")
    reply = simulated_reply(player, messages, seed)
    return reply, sum(len(message["content"].split()) for message in messages), len(reply.split())


def simulated_reply(player: str, messages: list, seed: int | None) -> str:
    """Returns the reply of `player` (one of `SimulatedPlayers.names`). Raises CustomLLMError if it cannot read the prompt."""
    prompt = messages[-1]["content"]
    return _PLAYERS[player](messages[0]["content"], prompt, random.Random(f"{seed}/{player}/{prompt}"))


def read_dialogue(prompt: str) -> tuple[list[Turn], str]:
    """Returns (the turns of the transcript in a prompt, the text after it). Strategies that are not shown are looked up by utterance."""
    turns, remainder = [], []
    for line in prompt.splitlines():
        if match := _LINE.match(line):
            name, strategy, text = match.groups()
            speaker = SEEKER if name == "Seeker" else SUPPORTER
            turns.append(Turn(speaker, text, None if speaker == SEEKER else strategy or _strategy_of(text)))
            remainder.clear()
        elif turns:
            remainder.append(line)
    return turns, "\n".join(remainder)


def _strategy_of(text: str) -> str | None:
    """Returns the strategy of a simulated supporter's utterance; None for any other utterance, such as a gold one."""
    return _strategy_by_line().get(text)


def _strategy_by_line() -> dict[str, str]:
    if not _BY_LINE:
        _BY_LINE.update({line: strategy for strategy, bank in seeker_state.lines()["supporter"].items() for line in bank})
    return _BY_LINE


_BY_LINE: dict[str, str] = {}
# Strategies of ESConv for which the utterances of an ExTES strategy are used.
_SAME_LINES_AS = {
    "Reflection of Feelings": "Empathetic Statements",
    "Affirmation and Reassurance": "Affirmation",
    "Providing Suggestions": "Collaborative Planning",
    "Information": "Share Information",
}


def _seeker(system: str, prompt: str, rng: random.Random) -> str:
    turns, _ = read_dialogue(prompt)
    state = seeker_state.infer_state(turns, _names_in(turns))
    bank = seeker_state.lines()["seeker"]
    # A seeker who was helped leaves early; one who was not leaves as well, but later.
    wants_to_leave = state.turns - seeker_state.USUAL_LENGTH + 2 + (state.mood / max(state.turns, 1) - 0.5) * 3 - state.strain
    if state.turns > 3 and rng.random() < wants_to_leave / 6:
        return f"{_pick(bank['closing'], turns, rng)} </end/>" if rng.random() < 0.8 else "</end/>"
    if state.strain > 1.0 and state.last_fit < seeker_state.POOR:
        return _pick(bank["guarded"], turns, rng)
    return _pick(bank[seeker_state.next_need(turns, state, rng)], turns, rng)


def _supporter(system: str, prompt: str, rng: random.Random) -> str:
    turns, remainder = read_dialogue(prompt)
    strategy = _requested_strategy(remainder)
    banks = seeker_state.lines()["supporter"]
    return _pick(banks[_SAME_LINES_AS.get(strategy, strategy)], turns, rng)


def _strategist(system: str, prompt: str, rng: random.Random) -> str:
    turns, _ = read_dialogue(prompt)
    names = _names_in_rubric(system).names
    fit = seeker_state.relative(seeker_state.fits(turns), names)
    return json.dumps({name: _scaled(fit[name] + rng.gauss(0, NOISE), 10) for name in names})


def _judge(system: str, prompt: str, rng: random.Random) -> str:
    """Scores the last supporter turn by its fit to the state before it; the more strain, the lower the scores."""
    turns, _ = read_dialogue(prompt)
    last = max(i for i, turn in enumerate(turns) if turn.speaker == SUPPORTER)
    history, strategy = turns[:last], turns[last].strategy
    state = seeker_state.infer_state(history, _names_in(turns))
    # 1 for the best strategy; far lower for one that misses the need.
    fit = state.fit.get(strategy, seeker_state.POOR) + rng.gauss(0, NOISE)
    benefit = min(fit / 0.85, 1.0) - 0.25 * min(state.strain, 2.0)
    repeated = any(turn.text == turns[last].text for turn in history)
    return _judgement(benefit, strategy, repeated, rng)


def _judge_noise(system: str, prompt: str, rng: random.Random) -> str:
    """Draws scores at random, distributed about as the judge's in searches of the sample corpus; they say nothing about the dialogue."""
    turns, _ = read_dialogue(prompt)
    benefit = rng.choices(list(_USUAL_BENEFITS), list(_USUAL_BENEFITS.values()))[0]
    return _judgement(benefit, rng.choice(_names_in(turns)), False, rng)


# How often the judge gives the strategy of a turn 0 to 4 points of 4.
_USUAL_BENEFITS = {0.0: 0.32, 0.25: 0.28, 0.5: 0.14, 0.75: 0.1, 1.0: 0.16}


def _judgement(benefit: float, strategy: str | None, repeated: bool, rng: random.Random) -> str:
    """Returns the reply of a judge who perceives this benefit (up to 1) of a turn in `strategy`, whose text was said before or not."""
    warm = strategy in ("Emotional Validation", "Empathetic Statements", "Avoid Judgment and Criticism")
    useful = strategy in ("Collaborative Planning", "Share Information", "Providing Suggestions", "Information")
    scores = {
        "empathy": 3.6 * benefit + 0.4 * warm,
        "information": 1.4 + 1.0 * benefit * useful + rng.gauss(0, 0.4),
        "humanoid": 3.2 - 2.0 * repeated + rng.gauss(0, 0.4),
        "strategy": 4 * benefit,
    }
    return json.dumps({name: _scaled(score / 4, 4) for name, score in scores.items()})


def _toxicity(system: str, prompt: str, rng: random.Random) -> str:
    """Rates the utterance that is the prompt."""
    return json.dumps(toxicity.rate(prompt))


def _reply_judge(name: str) -> Callable[[str, str, random.Random], str]:
    """Returns the player `name`, a judge of the replies that its prompt gives after the dialogue, or of the two conversations in it."""
    profile = judges.JUDGE_PROFILES[name]

    def reply(system: str, prompt: str, rng: random.Random) -> str:
        _, *conversations = _CONVERSATION.split(prompt)
        if len(conversations) == 2:
            both = [read_dialogue(text)[0] for text in conversations]
            return judges.compare_conversations(profile, system, both, _names_in([*both[0], *both[1]]), rng)
        turns, remainder = read_dialogue(prompt)
        return judges.answer(profile, system, turns, remainder, _names_in(turns), rng)

    return reply


_PLAYERS = {
    "seeker": _seeker,
    "supporter": _supporter,
    "strategist": _strategist,
    "judge": _judge,
    "judge_noise": _judge_noise,
    "toxicity": _toxicity,
    **{name: _reply_judge(name) for name in judges.JUDGE_PROFILES},
}


def _pick(bank: Sequence[str], turns: Sequence[Turn], rng: random.Random) -> str:
    """Returns a random line that no turn has used yet, or any line if all have been used."""
    used = {turn.text for turn in turns}
    return rng.choice([line for line in bank if line not in used] or list(bank))


def _scaled(share: float, highest: int) -> int:
    """Returns an integer score from 0 to `highest` for a share, clipped to 0 to 1."""
    return round(min(max(share, 0.0), 1.0) * highest)


def _requested_strategy(remainder: str) -> str:
    """Returns the first strategy that the supporter's prompt names after the transcript. Raises CustomLLMError if it names none."""
    positions = {remainder.find(name): name for name in seeker_state.MEETS if name in remainder}
    if not positions:
        raise CustomLLMError(400, "the simulated supporter finds no known strategy after the dialogue in its prompt")
    return positions[min(positions)]


def _names_in_rubric(system: str) -> StrategySet:
    """Returns the strategy set that the strategist's prompt lists. Raises CustomLLMError if it lists none."""
    for strategies in SETS.values():
        if all(name in system for name in strategies.names):
            return strategies
    raise CustomLLMError(400, "the simulated strategist finds no known set of strategies in its prompt")


def _names_in(turns: Sequence[Turn]) -> tuple[str, ...]:
    """Returns the names of the strategy set to which most strategies of the dialogue belong."""
    used = [turn.strategy for turn in turns if turn.strategy]
    return max(SETS.values(), key=lambda strategies: sum(name in strategies.names for name in used)).names
