"""The four roles of the search (appendix A): prompts, parsing of replies, role players over a client, and simulated ones."""

from cso_lab.llm.in_process import register_in_process


def _simulated_players():
    from cso_lab.roles.simulated.provider import SimulatedPlayers

    return SimulatedPlayers()


register_in_process("simulated", _simulated_players)
