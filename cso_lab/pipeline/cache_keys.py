"""The keys results are found by: a hash of all that a stage's result depends on."""

from omegaconf import DictConfig

from cso_lab.core.hashing import digest
from cso_lab.pipeline.settings import SETTINGS, generates_here, resolved
from cso_lab.pipeline.sources import sources
from cso_lab.pipeline.versions import VERSIONS
from cso_lab.training.machine import settled


def key(stage: str, cfg: DictConfig, *inputs: object) -> str:
    """The key of a stage's result: of its version, of the values it depends on, of the code outside the package that these name, and of
    `inputs`, which stand for the content of what the stage reads.

    Where a model runs here, device and number types count by what they come to on this machine. The names of cells do not hold them: a
    sweep plans its folders on a machine that need not be the one its jobs run on.
    """
    runs_a_model = stage == "train" or (stage == "generate" and generates_here(cfg))
    values = SETTINGS[stage](resolved(settled(cfg) if runs_a_model else cfg))
    return digest({"version": VERSIONS[stage], "settings": values, "code": sources(values), "inputs": inputs})
