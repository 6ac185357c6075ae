"""The search as its users run it: a process of its own, a raw ExTES file, and a server that plays the four roles over HTTP."""

import json
import os
from pathlib import Path

import pytest
from fakes import FakeOpenAI, FourPlayers, failure
from project import run_py

from cso_lab.core.strategies import ESCONV, EXTES

SECRET = "sk-recognisable-0123456789abcdef"
ITERATIONS = 10
NODE = "id parent strategy prior q n supporter seeker end gold scores".split()


def record(number: int, *strategies: str) -> dict:
    """A raw ExTES record of one exchange a strategy."""
    turns = []
    for i, strategy in enumerate(strategies):
        turns += [{"User": f"seeker {number}.{i}"}, {"AI": f"supporter {number}.{i}", "AI Strategy": strategy}]
    return {"scene": f"scene {number}", "description": f"situation {number}", "content": turns}


RAW = [
    record(0, "Reflective Statements", "Offer Hope"),  # Table 8: Emotional Validation, Affirmation
    record(1, "Affirmation", "Others"),
    record(2, "Affirmation", "Share Information", "Affirmation"),
    record(3, "Affirmation", "Small Talk"),
    record(4, "Empathetic Statements", "Collaborative Planning"),
]
GOLD = {
    "extes-0000": ["Emotional Validation", "Affirmation"],
    "extes-0002": ["Affirmation", "Share Information", "Affirmation"],
    "extes-0004": ["Empathetic Statements", "Collaborative Planning"],
}


@pytest.fixture
def search(raw_file, tmp_path):
    """Runs the search of RAW on a server into `tmp_path / "run"`, with a key in the environment."""
    file = raw_file(RAW)
    folder = tmp_path / "run"

    def run(server: FakeOpenAI, *further: str):
        return run_py(
            *("stages=[search]", "data=extes", f"data.path={file}", "data.test_share=0"),
            *("roles=server", f"roles.api_base={server.api_base}"),
            *(f"roles.{role}.model=openai/x" for role in ("seeker", "supporter", "strategist", "judge")),
            *("mcts=paper", f"mcts.min_iterations={ITERATIONS}", f"mcts.max_iterations={ITERATIONS}"),
            *(f"hydra.run.dir={folder}", f"shared_dir={folder}/shared", *further),
            env={**os.environ, "OPENAI_API_KEY": SECRET},
        )

    return run


def check_tree(tree: dict, number: int, gold: list[str]) -> None:
    """The schema of tree files, and what the gold dialogue and the number of iterations make of it."""
    assert list(tree) == ["id", "scene", "description", "nodes"]
    assert (tree["scene"], tree["description"]) == (f"scene {number}", f"situation {number}")
    nodes = tree["nodes"]
    assert [node["id"] for node in nodes] == list(range(len(nodes)))
    for node in nodes:
        assert list(node) == NODE
        assert (node["parent"] is None) == (node["id"] == 0) and (node["parent"] or 0) <= node["id"]
        assert node["strategy"] in (EXTES.names if node["id"] else (None,))
        assert 0 < node["prior"] <= 1 and isinstance(node["n"], int) and -3 <= node["q"] <= 1
        assert all(value is None or isinstance(value, str) for value in (node["supporter"], node["seeker"]))
        assert node["scores"] is None or set(node["scores"]) == set("EIHS") and set(node["scores"].values()) <= set(range(5))
        assert node["n"] == 0 or node["supporter"] or node["id"] == 0
    assert nodes[0]["n"] == 100 + ITERATIONS
    assert (nodes[0]["supporter"], nodes[0]["seeker"]) == (None, f"seeker {number}.0")
    path = [node for node in nodes[1:] if node["gold"]]
    assert [node["strategy"] for node in path] == gold
    assert [node["supporter"] for node in path] == [f"supporter {number}.{i}" for i in range(len(gold))]
    assert [node["end"] for node in path] == [False] * (len(gold) - 1) + [True]
    assert any(node["scores"] for node in nodes), "no simulation reached the tree"


def files_with_the_key(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert folder / "run" / "config.yaml" in files
    return [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.long
def test_a_search_on_a_server_leaves_one_tree_a_usable_dialogue_and_no_key_anywhere(search, tmp_path):
    players = FourPlayers(EXTES.names)
    with FakeOpenAI(players) as server:
        done = search(server)
        assert done.returncode == 0, done.stderr
        requests = len(server.requests)
        again = search(server)
    assert again.returncode == 0, again.stderr
    assert len(server.requests) == requests == players.asked.total()  # a finished search sends no requests

    out = Path(json.loads((tmp_path / "run" / "stages.json").read_text(encoding="utf-8"))["search"])
    assert out.is_relative_to(tmp_path / "run" / "shared")
    assert sorted(path.name for path in (out / "trees").iterdir()) == [f"{name}.json" for name in GOLD]
    for name, gold in GOLD.items():
        tree = json.loads((out / "trees" / f"{name}.json").read_text(encoding="utf-8"))
        assert tree["id"] == name
        check_tree(tree, int(name[-4:]), gold)

    summary = json.loads((out / "search.json").read_text(encoding="utf-8"))
    assert (summary["players"], summary["dialogues"], summary["trees"], summary["set_aside"]) == ("server", 3, 3, {})
    assert summary["corpus"] == {
        "source": str(tmp_path / "raw.json"),
        "records": 5,
        "usable": 3,
        "dialogues": 3,
        "parts": {},
        "unknown_labels": {"Small Talk": {"count": 1, "nearest": None}},
        "rejected": {
            "a supporter turn labelled Others": {"count": 1, "ids": ["extes-0001"]},
            "a supporter turn with an unknown strategy": {"count": 1, "ids": ["extes-0003"]},
        },
    }
    # The model was asked for a schema, for any JSON and for neither before it was asked for scores.
    assert summary["usage"]["calls"] == dict(players.asked) | {"format probe": 3}
    assert len(server.probes) == 3
    assert set(players.asked) == {"seeker", "supporter", "strategist", "judge"}

    assert files_with_the_key(tmp_path) == []
    assert SECRET not in "".join([done.stdout, done.stderr, again.stdout, again.stderr])


@pytest.mark.long
def test_a_key_that_is_sent_stands_nowhere_even_when_the_server_repeats_it(search, tmp_path):
    named = "roles.api_key_env=OPENAI_API_KEY"
    with FakeOpenAI(failure(401, f"Incorrect API key provided: {SECRET}")) as server:
        refused = search(server, named)
    assert refused.returncode == 2
    lines = [line for line in refused.stderr.splitlines() if line.strip()]
    assert lines[-1].startswith("error: openai/x as ") and "Traceback" not in refused.stderr
    assert not list(tmp_path.rglob("trees/*.json"))

    with FakeOpenAI(FourPlayers(EXTES.names)) as server:
        done = search(server, named)
    assert done.returncode == 0, done.stderr
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {SECRET}"}
    assert len(list(tmp_path.rglob("trees/*.json"))) == len(GOLD)
    assert files_with_the_key(tmp_path) == []
    assert SECRET not in "".join([refused.stdout, refused.stderr, done.stdout, done.stderr])


ESCONV_TURNS = [
    (0, "I have moved to a new town and nobody ever calls.", None),
    (1, "How long have you been there?", "Questions"),
    (0, "Two months. I feel so alone, I think it's all my fault.", None),
    (1, "It sounds like the evenings are the worst.", "reflection of feelings"),
    (1, "I moved a lot as a child, too.", "Self-Disclosure"),
    (0, "They are. What should I do now? I need a plan.", None),
    (1, "Is there a club near you that you could try once?", "Suggestions"),
    (0, "Perhaps the choir.", None),
    (1, "You have come this far. Good luck with it!", "Other"),
]
ESCONV_GOLD = ["Question", "Self-disclosure", "Providing Suggestions", "Others"]


@pytest.mark.long
def test_a_raw_esconv_file_becomes_trees_and_pairs_in_its_own_eight_strategies(raw_file, tmp_path):
    def raw(*names: str) -> dict:
        turns = [
            {"speaker": names[by], "annotation": {"strategy": s} if by else {}, "content": text} for by, text, s in ESCONV_TURNS
        ]
        return {"problem_type": "loneliness", "emotion_type": "sadness", "situation": "A new town.", "dialog": turns}

    file = raw_file([raw("speaker", "listener"), {"dialog": []}, raw("seeker", "supporter")])
    done = run_py(
        *("stages=[search,dataset]", "data=esconv", f"data.path={file}", "data.test_share=0", "mcts.min_iterations=25"),
        *("mcts.max_iterations=25", f"hydra.run.dir={tmp_path}/run", f"shared_dir={tmp_path}/shared"),
    )
    assert done.returncode == 0, done.stderr
    stages = {name: Path(folder) for name, folder in json.loads((tmp_path / "run" / "stages.json").read_text()).items()}
    trees = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(stages["search"].glob("trees/*.json"))]
    assert [tree["id"] for tree in trees] == ["esconv-0000", "esconv-0002"]
    for tree in trees:
        assert (tree["scene"], tree["description"]) == ("loneliness (sadness)", "A new town.")
        assert [node["strategy"] for node in tree["nodes"] if node["gold"]] == [None, *ESCONV_GOLD]
        assert {node["strategy"] for node in tree["nodes"][1:]} == set(ESCONV.names)
    summary = json.loads((stages["search"] / "search.json").read_text(encoding="utf-8"))
    assert summary["corpus"]["rejected"] == {"no content": {"count": 1, "ids": ["esconv-0001"]}}
    pairs = [json.loads(line) for line in (stages["dataset"] / "preferences" / "pairs.jsonl").read_text().splitlines()]
    assert "2 of 3 records are usable dialogues" in done.stdout and "left out 1: no content (esconv-0001)" in done.stdout
    assert pairs
    for pair in pairs:
        assert all(f"- {name}: " in pair["prompt"][0]["content"] for name in ESCONV.names), pair["prompt"][0]
