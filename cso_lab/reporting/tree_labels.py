"""Reads search trees for display, and labels every node: preferred, dispreferred, or why it is neither (equations 5 and 6)."""

from argparse import ArgumentParser
from pathlib import Path

from omegaconf import OmegaConf

from cso_lab.config import CONF
from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json
from cso_lab.search.paths import dispreferred, scored, valid_paths
from cso_lab.search.tree import Node, Tree

PREFERRED, DISPREFERRED, NEITHER, UNSCORED, UNEXPANDED = "preferred", "dispreferred", "neither", "not scored", "not expanded"


def read_tree(path: Path) -> Tree:
    """Returns the tree in a `trees/*.json`. Raises UserError if the file holds none."""
    try:
        return Tree.from_json(read_json(path))
    except (AttributeError, IndexError, KeyError, TypeError):
        raise UserError(f"{path}: not a tree as the search writes it: {{id, scene, description, nodes: [...]}}") from None


def node_labels(tree: Tree, theta: float, min_end_visits: int) -> list[str]:
    """Returns one label per node, by node id: PREFERRED on a valid path (eq. 5), DISPREFERRED beside one (eq. 6), or another."""
    chosen = {node.id: node for path in valid_paths(tree, theta, min_end_visits) for node in path}
    rejected = {bad.id for good in chosen.values() for bad in dispreferred(good, theta, set(chosen))}
    return [_label(node, chosen, rejected) for node in tree.nodes]


def _label(node: Node, chosen: dict[int, Node], rejected: set[int]) -> str:
    if node.id in chosen:
        return PREFERRED
    if node.id in rejected:
        return DISPREFERRED
    if not node.expanded:
        return UNEXPANDED
    return NEITHER if scored(node) else UNSCORED


def add_thresholds(parser: ArgumentParser) -> None:
    """Adds --theta and --min-end-visits to a command; the defaults are those of conf/preferences/escpro.yaml."""
    paper = OmegaConf.load(CONF / "preferences" / "escpro.yaml")
    parser.add_argument("--theta", type=float, default=paper.theta, help="Q that divides good from bad (default: %(default)s)")
    parser.add_argument(
        "--min-end-visits", type=int, default=paper.min_end_visits, help="visits a valid path's end has (default: %(default)s)"
    )
