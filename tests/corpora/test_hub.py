"""Data sets of the model hub: which file of which revision is read, the newest one each time, and what the cache is for."""

import json
import os
import subprocess
import sys

import pytest
from dataset_hub import FakeHub
from omegaconf import OmegaConf
from project import ROOT, option

PROBE = """
import json, sys
from omegaconf import OmegaConf
from cso_lab.corpora import data_identity, divide
from cso_lab.core.errors import UserError
cfg = OmegaConf.merge(OmegaConf.load(sys.argv[1]), OmegaConf.from_dotlist(sys.argv[2:]))
try:
    corpus, train, test = divide(cfg)
    said = {"source": corpus.source, "train": [d.turns[0].text for d in train], "test": [d.turns[0].text for d in test]}
    print(json.dumps(said | {"identity": data_identity(cfg)}))
except UserError as error:
    print(json.dumps({"error": str(error)}))
"""


def dialogue(opening):
    answers = [{"role": "assistant", "content": f"{opening} {i}", "strategy": "Affirmation"} for i in range(2)]
    return {"messages": [{"role": "user", "content": opening}, answers[0], {"role": "user", "content": "so"}, answers[1]]}


def published(*openings):
    return json.dumps([dialogue(opening) for opening in openings])


@pytest.fixture
def hub():
    with FakeHub() as served:
        yield served


@pytest.fixture
def probe(hub, tmp_path):
    """Reads a data set in a process of its own, as a run does; returns what it found and what was printed beside it."""

    def read(*line, data="escpro", endpoint=None, **environment):
        shared = {"HF_ENDPOINT": endpoint or hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        OmegaConf.save(option("data", data), tmp_path / "data.yaml")
        command = [sys.executable, "-c", PROBE, str(tmp_path / "data.yaml"), "test_share=0", *line]
        env = {**os.environ, "PYTHONPATH": str(ROOT), **shared, **environment}
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        *printed, found = done.stdout.splitlines()
        return json.loads(found), "\n".join([*printed, *done.stderr.splitlines()])

    return read


def test_the_training_file_is_read_its_revision_named_and_the_other_offered(hub, probe):
    first = hub.commit(**{"ESC-Pro__json": published("one", "two"), "eval__json": published("held out")})
    found, printed = probe("path=owner/pairs")
    assert found["train"] == ["one", "two"] and found["test"] == []
    assert found["source"] == f"ESC-Pro.json of owner/pairs, revision {first}"
    offered = f"hf://datasets/owner/pairs@{first}/eval.json"
    assert f"reading ESC-Pro.json of owner/pairs, revision {first}; data.test_path={offered}" in printed

    second = hub.commit(**{"ESC-Pro__json": published("three"), "eval__json": published("held out")})
    newest, _ = probe("path=owner/pairs", f"test_path={offered}")
    assert (newest["train"], newest["test"]) == (["three"], ["held out"])
    assert newest["source"].endswith(second) and newest["identity"][0] != found["identity"]
    pinned, _ = probe(f"path=owner/pairs@{first}")
    assert pinned["train"] == ["one", "two"] and pinned["identity"] == found["identity"]


@pytest.mark.long
def test_where_the_hub_is_out_of_reach_the_cache_is_read_and_named(hub, probe):
    nowhere = "http://127.0.0.1:9"
    missing, _ = probe("path=owner/pairs", endpoint=nowhere)
    assert missing["error"].startswith("data.path=owner/pairs: no such file, and the hub gives no data set of that name (")
    commit = hub.commit(**{"ESC-Pro__json": published("one"), "eval__json": published("held out")})
    probe("path=hf://datasets/owner/pairs/eval.json")
    partly, _ = probe("path=owner/pairs", endpoint=nowhere)
    assert "its cache holds only eval.json" in partly["error"]
    online, _ = probe("path=owner/pairs")
    cached, printed = probe("path=owner/pairs", endpoint=nowhere)
    assert probe("path=owner/pairs", HF_HUB_OFFLINE="1")[0] == online
    assert cached == online and f"its cache holds revision {commit}, which is used" in printed


@pytest.mark.long
def test_what_the_hub_refuses_is_one_line_and_every_corpus_takes_its_names(hub, probe):
    hub.commit(train__json=json.dumps([{"text": json.dumps({"dialog": esconv_turns()})}]), test__json="[]")
    found, _ = probe("path=owner/pairs", data="esconv")
    assert found["train"] == ["hello"] and "train.json" in found["source"]
    hub.commit(train__json=json.dumps([{"content": [{"User": "hi"}, {"AI": "yes", "AI Strategy": "Affirmation"}] * 2}]))
    assert probe("path=owner/pairs", data="extes", HF_HUB_OFFLINE="0")[0]["train"] == ["hi"]
    for name in ("owner/other", "hf://datasets/owner/pairs@nowhere/train.json", "hf://datasets/owner/pairs/none.json"):
        error = probe(f"path={name}")[0]["error"]
        assert error.startswith(f"data.path={name}: ") and "\n" not in error
    hub.commit(a__json="[]", b__json="[]")
    error = probe("path=owner/pairs")[0]["error"]
    assert "several data files (a.json, b.json); name one: data.path=hf://datasets/owner/pairs@" in error
    hub.commit(model__bin=b"")
    assert "holds no data file" in probe("path=owner/pairs")[0]["error"]


def esconv_turns():
    return [{"speaker": "usr", "text": "hello"}, {"speaker": "sys", "text": "why?", "strategy": "Question"}] * 2
