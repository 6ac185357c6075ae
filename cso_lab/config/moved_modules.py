"""Former names of modules of this package, for error messages about `_target_` and imports in users' code."""

MOVED = {
    "cso_lab.dialogue": "cso_lab.core.records",
    "cso_lab.strategies": "cso_lab.core.strategies",
    "cso_lab.files": "cso_lab.core.files",
    "cso_lab.errors": "cso_lab.core.errors",
    "cso_lab.expansion": "cso_lab.expansion.expand",
    "cso_lab.inspection": "cso_lab.analysis",
    "cso_lab.inspection.asked": "cso_lab.analysis.llm_scorer",
    "cso_lab.inspection.judge": "cso_lab.analysis.llm_judge",
    "cso_lab.generation.refine": "cso_lab.generation.decoding_strategies",
    "cso_lab.preferences.authors": "cso_lab.preferences.published_escpro",
    "cso_lab.preferences.fresh": "cso_lab.preferences.generate_negatives",
    "cso_lab.roles.cast": "cso_lab.roles.role_players",
    "cso_lab.roles.client": "cso_lab.llm.client",
    "cso_lab.roles.faults": "cso_lab.llm.errors",
    "cso_lab.roles.together": "cso_lab.core.task_group",
    "cso_lab.roles.transport": "cso_lab.llm.transport",
    "cso_lab.search.players": "cso_lab.search.roles",
    "cso_lab.search.simulation": "cso_lab.search.rollout",
    "cso_lab.reporting.callback": "cso_lab.pipeline.sweep_callback",
    "cso_lab.reporting.wandb_view": "cso_lab.tracking.wandb_view",
    "cso_lab.training.sharing": "cso_lab.training.shared_forward",
    "cso_lab.training.prefix_sharing": "cso_lab.training.prefix_forest",
    "cso_lab.training.batching": "cso_lab.training.samplers",
}


def new_module(text: str) -> str | None:
    """Returns "OLD is NEW now" for the longest former module name in a text; None if there is none."""
    words = text.replace("'", " ").replace('"', " ").replace(",", " ").split()
    matches = [old for old in MOVED if any(word == old or word.startswith(f"{old}.") for word in words)]
    old = max(matches, key=len, default=None)
    return old and f"{old} is {MOVED[old]} now"
