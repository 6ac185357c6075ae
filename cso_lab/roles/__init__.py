"""The four roles of the search (appendix A): prompts, parsing of replies, role players over a client, and simulated ones.

Read `role_players.py` first, then `prompts.py`, `parsing.py` and `scores.py`; `simulated/` plays the roles without a language model.
"""

from cso_lab.llm.in_process import InProcessModels, register_in_process


def _simulated_players() -> InProcessModels:
    from cso_lab.roles.simulated.provider import SimulatedPlayers

    return SimulatedPlayers()


register_in_process("simulated", _simulated_players)
