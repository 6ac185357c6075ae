"""The search stage: gold dialogues -> trees, with progress display, cost estimate and shards."""
