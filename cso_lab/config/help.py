"""The text of `python run.py --help`. It is made from file names alone: Hydra's own help takes seconds with this many groups."""

from pathlib import Path

EXAMPLES = """\
cso_lab: Chain-of-Strategy Optimization for emotional support dialogue.

  python run.py backbone=gemma algo=kto mode=lora    one cell: search, dataset, train, generate, evaluate, report
  python run.py 'stages=[search,dataset]'            a part of one
  python run.py -m algo=sft,dpo mode=lora,full       a sweep
  python run.py +table=demo                          a sweep of experiments/ and its table
  python run.py algo=dpo training.learning_rate=1e-5 any value can be set
  python run.py algo=dpo --cfg job --resolve         show the configuration and run nothing (every key is explained in conf/)
"""
FLAGS = "Flags: --cfg job [--resolve] [--package NODE], -m (sweep), --info, --hydra-help"


def usage(root: Path) -> str:
    """Returns examples, and every choice with its options: `conf/<choice>/<option>.yaml`, `experiments/<kind>/<name>.yaml` in `root`."""
    choices = {f"{kind.name}=": _options(kind) for kind in sorted((root / "conf").iterdir()) if kind.is_dir()}
    sweeps = {f"+{kind.name}=": _options(kind) for kind in sorted((root / "experiments").iterdir()) if kind.is_dir()}
    rows = {name: options for name, options in (choices | sweeps).items() if options}
    width = max(map(len, rows))
    listing = "\n".join(f"  {name:{width}} {' '.join(options)}" for name, options in rows.items())
    return f"{EXAMPLES}\nChoices:\n{listing}\n\n{FLAGS}\n"


def _options(folder: Path) -> list[str]:
    """Returns the names of the YAML files in `folder`, sorted."""
    return sorted(file.stem for file in folder.glob("*.yaml"))
