"""The list of all stages, in the order in which they run."""

from cso_lab.pipeline.converse import Converse
from cso_lab.pipeline.dataset import Dataset
from cso_lab.pipeline.evaluate import Evaluate
from cso_lab.pipeline.generate import Generate
from cso_lab.pipeline.inspect import Inspect
from cso_lab.pipeline.report import Report
from cso_lab.pipeline.search import Search
from cso_lab.pipeline.stage import Result, Stage
from cso_lab.pipeline.train import Train

STAGES: tuple[Stage, ...] = (Search(), Dataset(), Inspect(), Train(), Converse(), Generate(), Evaluate(), Report())
RESULTS: dict[str, type[Result]] = {result.name: result for result in Result.__subclasses__()}
"""Every kind of result that is found by a key, those of the stages and what they draw on."""
