"""`python -m cso_lab.judging`: Tables 1, 3 and 6, and conversations, by models or by people.

  preferences RUN             Table 1: preferred against dispreferred replies of the run's preference data
  compare RUN OTHER           Table 3: both runs' replies at the same test turns, CSO before SFT
  rate RUN                    Table 6: scores of seed, preferred and dispreferred replies
  conversations RUN OTHER     both runs' conversations with the same seekers: exploration, insight, action, overall
  sheet preferences RUN       the same replies as a sheet for people, no model asked; likewise with the other commands
  read FOLDER SHEET ...       the same table from filled-in sheets (CSV, or Label Studio's JSON export); FOLDER is RUN/judging/NAME

Values of conf/judging.yaml may follow, such as judges=[openai/gpt-4o-mini,openai/gpt-4o] items=50 client.budget.dollars=5.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cso_lab.core.commands import Parser, run
from cso_lab.core.errors import UserError

_RUN_COUNTS = {"preferences": 1, "compare": 2, "rate": 1, "conversations": 2}
_NAMES = {"preferences": "table1", "compare": "table3", "rate": "table6", "conversations": "conversations"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line. Raises UserError if it is not valid."""
    parser = Parser(prog="python -m cso_lab.judging", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="COMMAND", help="see above")
    words = parser.parse_args(arguments).words
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    words = [word for word in words if word not in overrides]
    if words[:1] == ["read"]:
        return _read([Path(word) for word in words[1:]], overrides)
    sheet = words[:1] == ["sheet"]
    command, *folders = words[sheet:] or [""]
    if command not in _RUN_COUNTS:
        from cso_lab.core.errors import unknown

        raise unknown("command", command, [*_RUN_COUNTS, "sheet", "read"])
    if len(folders) != _RUN_COUNTS[command]:
        raise UserError(
            f"{command} takes {_RUN_COUNTS[command]} run folder{'s' * (_RUN_COUNTS[command] > 1)}, {len(folders)} given (see --help)"
        )
    for folder in folders:
        if not Path(folder).is_dir():
            raise UserError(f"{folder}: no such folder; expected a run's, such as multirun_outputs/runs/NAME")
    _judge(command, [Path(folder) for folder in folders], overrides, sheet)


def _judge(command: str, folders: list[Path], overrides: list[str], sheet: bool) -> None:
    from cso_lab.judging import sampling
    from cso_lab.judging.llm_judges import check_judges, estimate_calls
    from cso_lab.judging.settings import load_settings
    from cso_lab.judging.study import Study

    settings = load_settings(overrides)
    draw = {
        "preferences": sampling.sample_pairs,
        "compare": sampling.sample_test_turns,
        "rate": sampling.sample_replies,
        "conversations": sampling.sample_conversations,
    }[command]
    if not sheet:
        check_judges(settings)
    sample = draw(*folders, settings[command], settings["items"], settings["seed"])
    name = settings["name"] or "-".join([_NAMES[command], *(folder.resolve().name for folder in folders[1:])])
    folder = folders[0] / "judging" / name
    if settings["estimate"]:
        print(f"judging {len(sample.items)} items: {estimate_calls(sample, settings, folder)}")
        return
    study = Study.begin(folder, sample)
    if sheet:
        out = study.write_sheet(settings)
        print(f"for the annotators: {out} ({len(sample.items)} rows; sheet.csv or labelstudio.json with labelstudio.xml)")
        print(f"what the sides mean, not for them: {folder / 'sheet_key.json'}")
        print(f"filled-in sheets are counted by: python -m cso_lab.judging read {folder} SHEET.csv ...")
        return
    if not settings["judges"][0].startswith("simulated/"):
        print(f"judging {len(sample.items)} items: {estimate_calls(sample, settings, folder)}")
    _show(study.judge(settings))


def _read(paths: list[Path], overrides: list[str]) -> None:
    from cso_lab.judging.study import Study

    if overrides:
        raise UserError(f"read takes no {overrides[0]}: the settings are those of the sheet handed out")
    if len(paths) < 2:
        raise UserError("read takes a folder RUN/judging/NAME and at least one sheet (see --help)")
    _show(Study.open(paths[0]).read_sheets(paths[1:]))


def _show(report: Path) -> None:
    print(report.read_text(encoding="utf-8"))
    print(f"judging: {report}")


if __name__ == "__main__":
    run(main)
