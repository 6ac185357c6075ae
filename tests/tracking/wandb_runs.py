"""What stands in the W&B runs that a cell has left offline, read back by wandb's own reader."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Read:
    """One run folder of W&B. `history` without wandb's own keys; `tables` {name: {columns, data}}; `artifacts` {name: its files}."""

    folder: Path
    run: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    summary: dict = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    tables: dict = field(default_factory=dict)
    artifacts: dict = field(default_factory=dict)
    exit_code: int | None = None

    def logged(self, key: str) -> list:
        return [entry[key] for entry in self.history if key in entry]


def left_in(folder: Path) -> list[Read]:
    """The runs below a cell's folder, oldest first."""
    found = [path for path in (Path(folder) / "wandb").glob("*run-*") if path.is_dir() and not path.is_symlink()]
    return [read(path) for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def read(folder: Path) -> Read:
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = Read(Path(folder))
    for record in map(json.loads, done.stdout.splitlines()):
        value = record.get(record["type"])
        match record["type"]:
            case "run":
                found.run, found.config = value, value["config"]["update"]
            case "summary":
                found.summary |= value.get("update", {})
            case "history":
                found.history.append({key: item for key, item in value["item"].items() if not key.startswith("_")})
            case "artifact":
                found.artifacts[value["name"]] = value["manifest"]["contents"]
            case "exit":
                found.exit_code = value.get("exit_code", 0)
    for entry in found.history:
        for key in [key for key in entry if key.endswith(".path") and entry[key].endswith(".table.json")]:
            file = found.folder / "files" / entry[key]
            found.tables[key.removesuffix(".path")] = json.loads(file.read_text(encoding="utf-8"))
    return found


def keyless(home: Path, **more: str) -> dict[str, str]:
    """The environment of somebody who has no W&B account."""
    home.mkdir(exist_ok=True)
    return (
        {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "NETRC"))}
        | {"HOME": str(home)}
        | more
    )
