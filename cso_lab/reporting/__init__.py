"""From metrics.json files to tables, ours beside the paper's."""
