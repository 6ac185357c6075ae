"""A search split into parts (`data.shard=i/n`): the folder of each part, and how the parts are put together again.

The folder of the whole search contains those of its parts, `shards/2of4` and so on.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from cso_lab.core.files import read_json, write_json
from cso_lab.corpora import part_of
from cso_lab.expansion.expand import SUMMARY, tree_files


def part_folder(whole: Path, part: str) -> Path:
    """Returns the folder of part "i/n" of the search in `whole`, which is `whole` itself for "1/1"."""
    index, parts = part_of(part)
    return whole if parts == 1 else whole / "shards" / f"{index}of{parts}"


def union(whole: Path) -> tuple[list[Path], list[str]]:
    """Returns (the tree files of the whole search sorted by dialogue id, its missing parts such as "2/4").

    The trees are those in `whole` if that search has finished, else those of its n parts; if there are parts for several n, the n with
    the fewest missing parts is used. A part counts as soon as its search has finished, even with dialogues set aside.
    """
    finished = defaultdict(set)
    for folder in _parts(whole):
        if _finished(folder):
            index, parts = _numbers(folder)
            finished[parts].add(index)
    if _finished(whole) or not finished:
        return tree_files(whole), []
    parts = min(finished, key=lambda n: (n - len(finished[n]), n))
    missing = [f"{index}/{parts}" for index in range(1, parts + 1) if index not in finished[parts]]
    files = (file for index in finished[parts] for file in tree_files(part_folder(whole, f"{index}/{parts}")))
    return sorted(files, key=lambda file: file.name), missing


def copy_finished_trees(whole: Path, out: Path, dialogues: Iterable[str]) -> int:
    """Copies trees of `dialogues` (ids) from other parts of the search into `out`, unless it has them; returns how many."""
    available = {file.stem: file for folder in (whole, *_parts(whole)) for file in tree_files(folder)}
    copied = set(available) & set(dialogues) - {file.stem for file in tree_files(out)}
    for dialogue in copied:
        write_json(out / "trees" / available[dialogue].name, read_json(available[dialogue]))
    return len(copied)


def usage_of_parts(whole: Path) -> Mapping[str, Mapping]:
    """Returns {"i/n": `usage` of the part's search.json} for every part that has one."""
    summaries = ((folder, folder / SUMMARY) for folder in _parts(whole))
    return {"{}/{}".format(*_numbers(folder)): read_json(file)["usage"] for folder, file in summaries if file.exists()}


def _finished(folder: Path) -> bool:
    """Returns whether the search in `folder` ran to its end, rather than being stopped by its budget, a server or Ctrl-C."""
    return (folder / SUMMARY).exists() and not read_json(folder / SUMMARY).get("stopped")


def _parts(whole: Path) -> list[Path]:
    return sorted((whole / "shards").glob("*of*"))


def _numbers(folder: Path) -> tuple[int, int]:
    return part_of(folder.name.replace("of", "/"))
