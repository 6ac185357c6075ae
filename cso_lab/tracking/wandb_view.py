"""`python -m cso_lab.tracking.wandb_view ENTITY/PROJECT`: makes a W&B workspace that compares the cells `tracking=wandb` logged."""

from collections.abc import Sequence

from cso_lab.core.commands import Parser, run
from cso_lab.core.errors import UserError
from cso_lab.reporting.cells import METRICS
from cso_lab.reporting.conversations import HEADERS as CONVERSATION_HEADERS
from cso_lab.reporting.rows import HEADERS
from cso_lab.tracking.contents import CURVE, CURVE_AXIS
from cso_lab.tracking.paper_comparison import DIFFERENCE, PAPER

NAME = "CSO: cells side by side"
# Quantities of training, in the order of report.html; the chart of one that an algorithm does not log is empty.
_CURVES = ("loss", "rewards/accuracies", "rewards/margins", "grad_norm", "learning_rate")
_SEARCH = ("dialogues_done", "calls", "tokens", "dollars")
_CONVERSATIONS = ("success", "turns_to_success", "intensity", "area", "harmful")
_BARS = 50


def workspace(entity: str, project: str, name: str = NAME, group: str | None = None):
    """Returns a workspace of wandb-workspaces: bars of Q and B per cell, then differences to the paper, curves, figures and searches.

    `group` restricts it to the cells of one table or sweep.
    """
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    def bars(title: str, *keys: str):
        metrics = [panels.SummaryMetric(key) for key in keys]
        return panels.BarPlot(title=title, metrics=metrics, orientation="h", max_bars_to_show=_BARS, max_runs_to_show=_BARS)

    def curve(stage: str, axis: str, key: str):
        return panels.LinePlot(title=key, x=panels.Metric(f"{stage}/{axis}"), y=[panels.Metric(f"{stage}/{key}")])

    def section(title: str, *members, is_open: bool = True):
        return workspaces.Section(name=title, panels=list(members), is_open=is_open)

    first = ("Q", "B")
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            section("Preference and bias", *(bars(HEADERS[metric], metric) for metric in first)),
            section("Further metrics", *(bars(HEADERS[metric], metric) for metric in METRICS if metric not in first)),
            section("Ours minus the paper's", *(bars(metric, f"{DIFFERENCE}/{metric}") for metric in METRICS)),
            section(
                "Ours beside the paper's", *(bars(metric, metric, f"{PAPER}/{metric}") for metric in METRICS), is_open=False
            ),
            section(
                "Conversations",
                *(bars(CONVERSATION_HEADERS[name], f"conversation/{name}") for name in _CONVERSATIONS),
                panels.LinePlot(
                    title="intensity after every turn", x=panels.Metric(CURVE_AXIS), y=[panels.Metric(f"{CURVE}/intensity")]
                ),
                panels.MediaBrowser(title="transitions", media_keys=["figures/transitions"]),
                is_open=False,
            ),
            section("Training", *(curve("train", "step", key) for key in _CURVES)),
            section(
                "Strategies",
                panels.MediaBrowser(title="preference", media_keys=["figures/preferences"]),
                panels.MediaBrowser(title="confusion", media_keys=["figures/confusion"]),
            ),
            section("Search", *(curve("search", "seconds", key) for key in _SEARCH), is_open=False),
        ],
        runset_settings=workspaces.RunsetSettings(filters=[workspaces.Metric("Group") == group] if group else []),
    )


def _path(text: str) -> tuple[str, str]:
    entity, _, project = text.partition("/")
    if not entity or not project or "/" in project:
        raise UserError(f"{text}: expected ENTITY/PROJECT, such as my-team/cso_lab")
    return entity, project


def main(arguments: Sequence[str] | None = None) -> None:
    """Saves the workspace and prints its address. Raises UserError if W&B does not take it."""
    parser = Parser(prog="python -m cso_lab.tracking.wandb_view", description="Lay out a W&B workspace for comparing cells.")
    parser.add_argument("path", metavar="ENTITY/PROJECT", help="where `tracking=wandb` sends its runs")
    parser.add_argument("--name", default=NAME, help=f'what the view is called (default: "{NAME}")')
    parser.add_argument("--group", help="only the runs of this group: table9, demo, ...; default: all")
    parser.add_argument("--dry-run", action="store_true", help="print it as JSON and ask no server")
    options = parser.parse_args(arguments)
    entity, project = _path(options.path)
    view = workspace(entity, project, options.name, options.group)
    if options.dry_run:
        # What `save` would send; the library has no public name for it.
        print(view._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1))
        return
    from cso_lab.tracking.credentials import first_line, resolve_mode

    resolve_mode("online")  # raises UserError where there is no key, instead of asking for one
    try:
        saved = view.save()
    except Exception as error:  # whatever a server or the network does
        raise UserError(f"W&B took no workspace for {options.path}: {first_line(error)}") from None
    print(saved.url)


if __name__ == "__main__":
    run(main)
