"""Former names of configuration keys: {node: {old last part: new last part}}."""

RENAMED = {
    "mcts": {"memory": "cache_replies", "leaves_per_wave": "leaf_batch_size"},
    "mcts.search": {"memory": "cache_replies", "leaves_per_wave": "leaf_batch_size"},
    "training": {"kept_tokens": "max_activation_tokens"},
    "backbone": {"turns_at_once": "batch_size", "reply_tokens": "max_new_tokens"},
    "algorithm": {"start_from": "start"},
    **{
        client: {"attempts": "max_attempts", "longest_pause": "max_backoff"}
        for client in ("roles", "generation.client", "toxicity.client", "client")
    },
}


def new_name(key: str) -> str | None:
    """Returns the present name of a former key; None if `key` is none."""
    node, _, name = key.lstrip("+~").rpartition(".")
    renamed = RENAMED.get(node, {}).get(name)
    return renamed and f"{node}.{renamed}"
