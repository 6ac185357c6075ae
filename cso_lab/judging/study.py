"""One study in its folder, RUN/judging/NAME: the sample, the answers of models and people, and the tables made of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, write_json, write_jsonl
from cso_lab.judging.items import PAIRWISE, Sample
from cso_lab.judging.prompts import asked_criteria
from cso_lab.judging.tables import judging_markdown

SAMPLE, RESULTS, KEY, SHEET = "material.json", "judging.json", "sheet_key.json", "sheet"
MODELS, PEOPLE = "models", "people"


class Study:
    """A sample to be judged, and the folder its files are in.

    The folder holds material.json (the sample), calls.jsonl, answers_models.jsonl, answers_people.jsonl, judging.json and
    judging.md. sheet/ is for the annotators; sheet_key.json, which tells the sides of its replies, is not.
    """

    def __init__(self, folder: Path, sample: Sample):
        self.folder, self.sample = folder, sample

    @classmethod
    def open(cls, folder: Path) -> "Study":
        """Returns the study in a folder. Raises UserError if there is none."""
        if not (folder / SAMPLE).exists():
            raise UserError(
                f"{folder}: no {SAMPLE} in it: expected a folder RUN/judging/NAME that a command of cso_lab.judging made"
            )
        return cls(folder, Sample.from_json(read_json(folder / SAMPLE)))

    @classmethod
    def begin(cls, folder: Path, sample: Sample) -> "Study":
        """Returns a new study of `sample` in `folder`; calls to models that are journaled there are kept.

        Results of another sample are deleted. Raises UserError if a sheet of another sample has been handed out to people.
        """
        if (folder / SAMPLE).exists() and cls.open(folder).sample.fingerprint != sample.fingerprint:
            if (folder / KEY).exists():
                raise UserError(f"{folder} holds a sheet for people on other replies: give name=NAME for a study of its own")
            (folder / RESULTS).unlink(missing_ok=True)
        write_json(folder / SAMPLE, sample.to_json())
        return cls(folder, sample)

    def judge(self, settings: Mapping) -> Path:
        """Lets the models of `settings` judge the sample. Returns the path of judging.md.

        Raises UserError if no judge gave a usable answer.
        """
        from cso_lab.judging.llm_judges import ask_judges
        from cso_lab.judging.results import panel_results

        answers, refused = ask_judges(self.sample, settings, self.folder)
        if not answers:
            raise UserError(f"no judge has given a usable answer to any of {len(self.sample.items)} items")
        simulated = settings["judges"][0].startswith("simulated/")
        notices = []
        if simulated:
            notices.append(
                "The judges are simulated: they show that judging works and are no evidence about any reply or conversation."
            )
        if refused:
            notices.append(f"Without a usable answer: {', '.join(f'{judge} {n} times' for judge, n in refused.items())}.")
        used = {key: settings[key] for key in ("judges", "temperature", "max_tokens", "seed", "show_strategies", "scale")}
        used |= {"extra": settings["extra"]} if settings["extra"] else {}
        rubric = {criterion: settings["rubric"][criterion] for criterion in self.sample.criteria}
        panel = panel_results(
            self.sample,
            answers,
            settings["judges"],
            orders=2 if self.sample.kind in PAIRWISE else 1,
            simulated=simulated,
            scale=list(settings["scale"]),
            notices=notices,
            settings={**used, "rubric": rubric, "prompt": settings[self.sample.kind]},
        )
        write_jsonl(self.folder / "answers_models.jsonl", answers)
        return self._save_panel(MODELS, panel)

    def write_sheet(self, settings: Mapping) -> Path:
        """Writes the annotation sheet for people. Returns its folder.

        Raises UserError if a sheet with other settings has been written before.
        """
        from cso_lab.judging.annotation_sheets import instructions, write_sheet

        shown = self._shown(settings)
        if (self.folder / KEY).exists() and self._shown(read_json(self.folder / KEY)["settings"]) != shown:
            raise UserError(f"{self.folder} has handed out a sheet with other settings: give name=NAME for a study of its own")
        key = write_sheet(self.sample, settings, self.folder / SHEET)
        (self.folder / SHEET / "instructions.md").write_text(instructions(self.sample, settings), encoding="utf-8")
        write_json(self.folder / KEY, {"settings": shown, "shown_first": key})
        return self.folder / SHEET

    def _shown(self, settings: Mapping) -> dict:
        """Returns those of the settings that annotators see."""
        criteria = asked_criteria(self.sample.kind, self.sample.criteria)
        return {
            "show_strategies": settings["show_strategies"],
            "scale": list(settings["scale"]),
            "rubric": {criterion: settings["rubric"][criterion] for criterion in criteria},
        }

    def read_sheets(self, files: Sequence[Path]) -> Path:
        """Counts the answers in filled-in sheets. Returns the path of judging.md.

        Raises UserError, with row and reason, if a sheet is damaged, or if none has been written.
        """
        from cso_lab.judging.annotation_sheets import read_sheets
        from cso_lab.judging.results import panel_results

        if not (self.folder / KEY).exists():
            raise UserError(f"{self.folder}: no sheet has been handed out from it (no {KEY})")
        handed_out = read_json(self.folder / KEY)
        settings = handed_out["settings"]
        answers = read_sheets(files, self.sample, settings, handed_out["shown_first"])
        people = list(dict.fromkeys(answer.judge for answer in answers))
        panel = panel_results(
            self.sample,
            answers,
            people,
            orders=1,
            simulated=False,
            scale=settings["scale"],
            notices=[],
            settings=settings,
        )
        write_jsonl(self.folder / "answers_people.jsonl", answers)
        return self._save_panel(PEOPLE, panel)

    def _save_panel(self, name: str, panel: Mapping) -> Path:
        """Adds a panel to judging.json and writes all panels to judging.md. Returns the path of judging.md."""
        file = self.folder / RESULTS
        panels = read_json(file)["panels"] if file.exists() else {}
        sample = self.sample
        results = {
            "table": sample.table,
            "title": sample.title,
            "notices": list(sample.notices),
            "runs": list(sample.runs),
            "seed": sample.seed,
            "drawn_from": sample.of,
            "panels": {**panels, name: panel},
        }
        write_json(file, results)
        path = self.folder / "judging.md"
        path.write_text(judging_markdown(results), encoding="utf-8")
        return path
