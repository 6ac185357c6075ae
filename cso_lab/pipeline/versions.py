"""A version number for each stage, part of the key its results are found by.

Raise a stage's number in the very change that makes it give other results from the same configuration and the same inputs: another prompt,
another order of rows, another loss, another number in metrics.json, a mended fault. Results of before are then made anew, and what builds
on them follows by itself, since every stage's key holds what the one before it left. Do not raise it for what leaves results as they are
(docstrings, names, speed, messages): everybody's trainings would be done again. Code that several stages use (strategies, chat format,
loading of models) changes the results of each of them.

Raising `search` means that searches are paid for again, and `scores` that scorers are; do so only where what was kept is wrong. Code
outside the package is not counted here but by its source, see `sources`.
"""

VERSIONS = {
    # trees from dialogues: readers and splits of the corpora, the search, the players' prompts and parsing, the simulated players
    "search": 1,
    # pairs, KTO rows and SFT rows from trees, or from a corpus that is expanded already; statistics.json
    "dataset": 1,
    # what inspection.json and its figures hold
    "inspect": 1,
    # what a scorer of toxicity has answered, of whatever dataset
    "scores": 1,
    # a checkpoint from rows: chat format, fitting, order of rows, the arguments of the trainers, prefix sharing
    "train": 1,
    # predictions.jsonl: prompts, decoding, parsing
    "generate": 1,
    # which turns the strategy test set holds
    "testset": 1,
    # metrics.json
    "evaluate": 1,
}
