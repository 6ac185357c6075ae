"""Makes `cso_lab.config.sweeps` a sweeper of Hydra, which must be a class of the package hydra_plugins."""

from pathlib import Path

from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class CellsSweeper(Sweeper):
    """Launches the jobs of `cso_lab.config.sweeps.plan` all at once, without those that would only report."""

    def __init__(self, params: DictConfig | None = None, cells: DictConfig | None = None) -> None:
        """`params` and `cells` are read from the configuration, where the plan finds them too."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps the configuration and makes the launcher that it names."""
        from hydra.core.plugins import Plugins

        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[list[JobReturn]]:
        """Launches the planned jobs and returns their results. Raises the error of the first job that failed."""
        from cso_lab.config.sweeps import only_reports, plan

        jobs = [job for job in plan(self.config) if not only_reports(job.config)]
        if not jobs:
            return []
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        results = self.launcher.launch([list(job.overrides) for job in jobs], initial_job_idx=0)
        for result in results:
            _ = result.return_value  # raises what a job raised
        return [list(results)]
