"""One study in its folder, RUN/judging/NAME: the material, what models and people said of it, and its tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cso_lab.errors import UserError
from cso_lab.files import read_json, write_json, write_jsonl
from cso_lab.judging.items import COMPARISON, Material

MATERIAL, RESULTS, KEY, SHEETS = "material.json", "judging.json", "sheet_key.json", "sheet"
MODELS, PEOPLE = "models", "people"


class Study:
    """`folder` holds material.json, calls.jsonl, answers_models.jsonl, answers_people.jsonl, judging.json and judging.md; sheet/ is for the
    annotators, sheet_key.json is not."""

    def __init__(self, folder: Path, material: Material):
        self.folder, self.material = folder, material

    @classmethod
    def open(cls, folder: Path) -> "Study":
        """The study that was left in a folder."""
        if not (folder / MATERIAL).exists():
            raise UserError(
                f"{folder}: no {MATERIAL} in it: expected a folder RUN/judging/NAME that a command of cso_lab.judging made"
            )
        return cls(folder, Material.from_json(read_json(folder / MATERIAL)))

    @classmethod
    def begin(cls, folder: Path, material: Material) -> "Study":
        """A study of this material. Models' calls stay, whatever was judged in the folder before; people's work is never replaced."""
        if (folder / MATERIAL).exists() and cls.open(folder).material.digest != material.digest:
            if (folder / KEY).exists():
                raise UserError(f"{folder} holds a sheet for people on other replies: give name=NAME for a study of its own")
            (folder / RESULTS).unlink(missing_ok=True)
        write_json(folder / MATERIAL, material.to_json())
        return cls(folder, material)

    def ask(self, settings: Mapping) -> Path:
        """Have the models judge; returns judging.md."""
        from cso_lab.judging.llm_judges import ask_judges
        from cso_lab.judging.results import panel

        answers, refused = ask_judges(self.material, settings, self.folder)
        if not answers:
            raise UserError(f"no judge has given a usable answer to any of {len(self.material.items)} items")
        simulated = settings["judges"][0].startswith("simulated/")
        notices = []
        if simulated:
            notices.append("The judges are simulated: they show that judging works and are no evidence about any reply.")
        if refused:
            notices.append(f"Without a usable answer: {', '.join(f'{judge} {n} times' for judge, n in refused.items())}.")
        asked = {key: settings[key] for key in ("judges", "temperature", "max_tokens", "seed", "show_strategies", "scale")}
        rubric = {criterion: settings["rubric"][criterion] for criterion in self.material.criteria}
        prompt = settings["comparison" if self.material.kind == COMPARISON else "rating"]
        found = panel(
            self.material,
            answers,
            settings["judges"],
            orders=2 if self.material.kind == COMPARISON else 1,
            simulated=simulated,
            scale=list(settings["scale"]),
            notices=notices,
            settings={**asked, "rubric": rubric, "prompt": prompt},
        )
        write_jsonl(self.folder / "answers_models.jsonl", answers)
        return self._leave(MODELS, found)

    def hand_out(self, settings: Mapping) -> Path:
        """Write the sheets for people; returns their folder. A sheet that is out already is not replaced by one with other sides."""
        from cso_lab.judging.sheets import instructions, write_sheets

        shown = {
            "show_strategies": settings["show_strategies"],
            "scale": list(settings["scale"]),
            "rubric": dict(settings["rubric"]),
        }
        if (self.folder / KEY).exists() and read_json(self.folder / KEY)["settings"] != shown:
            raise UserError(f"{self.folder} has handed out a sheet with other settings: give name=NAME for a study of its own")
        key = write_sheets(self.material, settings, self.folder / SHEETS)
        (self.folder / SHEETS / "instructions.md").write_text(instructions(self.material, settings), encoding="utf-8")
        write_json(self.folder / KEY, {"settings": shown, "shown_first": key})
        return self.folder / SHEETS

    def take_in(self, files: Sequence[Path]) -> Path:
        """Count what people wrote into their sheets; returns judging.md."""
        from cso_lab.judging.annotation_sheets import read_sheets
        from cso_lab.judging.results import panel

        if not (self.folder / KEY).exists():
            raise UserError(f"{self.folder}: no sheet has been handed out from it (no {KEY})")
        handed_out = read_json(self.folder / KEY)
        settings = handed_out["settings"]
        answers = read_sheets(files, self.material, settings, handed_out["shown_first"])
        people = list(dict.fromkeys(answer.judge for answer in answers))
        found = panel(
            self.material,
            answers,
            people,
            orders=1,
            simulated=False,
            scale=settings["scale"],
            notices=[],
            settings=settings,
        )
        write_jsonl(self.folder / "answers_people.jsonl", answers)
        return self._leave(PEOPLE, found)

    def _leave(self, name: str, panel: Mapping) -> Path:
        """Put a panel into judging.json beside the other, and write both as Markdown."""
        from cso_lab.judging.tables import judged_markdown

        file = self.folder / RESULTS
        panels = read_json(file)["panels"] if file.exists() else {}
        m = self.material
        found = {
            "table": m.table,
            "title": m.title,
            "notices": list(m.notices),
            "runs": list(m.runs),
            "seed": m.seed,
            "drawn_from": m.of,
            "panels": {**panels, name: panel},
        }
        write_json(file, found)
        text = self.folder / "judging.md"
        text.write_text(judged_markdown(found), encoding="utf-8")
        return text
