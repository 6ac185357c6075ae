"""The benchmark on GPUs: what it concludes from what its contenders found, and a run of it on the CPU."""

import json
import time

import pytest
from safetensors.torch import save_file
from torch import tensor

from experiments.benchmarks import gpu
from experiments.benchmarks.apart import run_apart
from experiments.benchmarks.contender import Job

FAST = {"rows": 4, "tokens": 400, "gib": 2.0, "loss": 1.0}


def contenders(monkeypatch, rate, failing=lambda job, title: None, gradient=lambda title, job: [1.0, 2.0]):
    """Replaces the contenders' processes. `rate(title)`: the rows a second of a contender; returns the titles of those that ran."""
    ran = []

    def answer(jobs, title, deadline, say):
        if jobs:
            ran.append(title)
        return [outcome(job, title) for job in jobs]

    def outcome(job, title):
        if reason := failing(job, title):
            return {"failed": reason}
        if job.kind == "compare":
            save_file({"gradient": tensor(gradient(title, job))}, job.gradient)
            return {"loss": 1.0}
        return {**FAST, "rows_per_second": rate(title)} if job.kind == "measure" else {"turns": 2}

    monkeypatch.setattr(gpu, "run_apart", answer)
    monkeypatch.setattr(gpu, "write_rows", lambda folder, dialogues: None)
    return ran


def results(capsys, *arguments: str) -> dict:
    gpu.main(["--device", "cpu", "--models", "llama", "--algos", "dpo,kto", "--tokenizer", "tiny_llama", *arguments])
    return json.loads(capsys.readouterr().out.splitlines()[-1])["models"]["llama"]


def rate(title: str) -> float:
    return 12.0 if "shared" in title else {"1": 2.0, "2": 4.0, "4": 3.0, "8": 3.5, "16": 9.0}[title.split()[-3]]


def test_a_speedup_is_over_trl_at_its_fastest_and_more_rows_are_not_tried_once_slower_twice(monkeypatch, capsys):
    ran = contenders(monkeypatch, rate)
    dpo = results(capsys)["algos"]["dpo"]
    assert (dpo["speedup"], dpo["against"], dpo["trl"]["at_once"], dpo["memory_ratio"]) == (3.0, "trl", 2, 1.0)
    assert list(dpo["trl"]["tried"]) == ["1", "2", "4", "8"]
    assert "llama: TRL at its fastest, 2 at once" in ran and not any("16" in title for title in ran)


def test_a_contender_out_of_memory_is_named_and_the_others_go_on(monkeypatch, capsys):
    out = "out of memory"
    contenders(monkeypatch, rate, lambda job, title: out if job.algo == "dpo" and "2 at once" in title else None)
    algos = results(capsys)["algos"]
    assert algos["dpo"]["trl"]["tried"]["2"] == {"failed": out} and "4" not in algos["dpo"]["trl"]["tried"]
    assert (algos["dpo"]["speedup"], algos["kto"]["speedup"]) == (6.0, 3.0)
    contenders(monkeypatch, rate, lambda job, title: out if job.algo == "dpo" and "TRL" in title else None)
    algos = results(capsys)["algos"]
    assert (algos["dpo"]["speedup"], algos["dpo"]["trl"]["failed"], algos["kto"]["speedup"]) == (None, out, 3.0)


def test_no_speedup_is_printed_where_float32_differs_and_the_exit_status_says_so(monkeypatch, capsys):
    def gradient(title, job):
        return [1.0, 2.01] if "shared" in title and job.algo == "kto" and job.layers == 2 else [1.0, 2.0]

    contenders(monkeypatch, rate, gradient=gradient)
    with pytest.raises(SystemExit, match="kto: differs from TRL in float32, so no speedup is printed"):
        results(capsys)
    printed = capsys.readouterr().out
    algos = json.loads(printed.splitlines()[-1])["models"]["llama"]["algos"]
    assert algos["kto"]["speedup"] is None and algos["dpo"]["speedup"] == 3.0
    assert "refused" in printed


def test_a_contender_that_breaks_off_is_named_and_the_exit_status_says_so(monkeypatch, capsys):
    contenders(monkeypatch, rate, lambda job, title: "exit 1: KeyError: 'x'" if job.kind == "generate" else None)
    with pytest.raises(SystemExit, match="llama: exit 1: KeyError: 'x'"):
        results(capsys)
    assert '"speedup": 3.0' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "gpt"], "no such model: gpt; valid: llama, qwen, gemma"),
        (["--algos", "dpo,ppo"], "no such algorithm: ppo; valid: sft, dpo, ipo, kto, simpo, orpo"),
        (["--device", "cpu", "--rows", "3"], "none of 1,2,4,8,16 divides 3 rows"),
    ],
)
def test_a_command_line_that_asks_for_nothing_known_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        gpu.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.long
def test_a_process_that_breaks_off_is_named_and_the_next_job_gets_one_of_its_own():
    said = []
    jobs = [Job(kind, "dpo", "", None, 1, None, "cpu") for kind in ("unknown", "none")]
    first, second = run_apart(jobs, "title", time.monotonic() + 100, said.append)
    assert first["failed"] == "exit 1: KeyError: 'unknown'" and second["failed"] == "exit 1: KeyError: 'none'"
    assert said[0] == "title: dpo (0 of 2 done)"
    assert run_apart(jobs[:1], "title", time.monotonic() - 1, said.append) == [{"failed": "time is up"}]


@pytest.mark.long
def test_the_benchmark_runs_on_the_cpu(capfd):
    small = [
        "--layers",
        "2",
        "--shrink",
        "8",
        "--vocabulary",
        "3000",
        "--tokenizer",
        "tiny_llama",
        "--rows",
        "2",
        "--sizes",
        "2",
    ]
    gpu.main(
        [
            "--device",
            "cpu",
            "--models",
            "llama",
            "--algos",
            "dpo",
            *small,
            "--repeats",
            "1",
            "--turns",
            "2",
            "--new-tokens",
            "2",
        ]
    )
    printed, progress = capfd.readouterr()
    found = json.loads(printed.splitlines()[-1])
    dpo, generation = found["models"]["llama"]["algos"]["dpo"], found["models"]["llama"]["generation"]
    assert (
        dpo["exactness"]["exact"] and dpo["exactness"]["grad_rel_diff"] < 1e-4 and dpo["agreement"]["gradient_cosine"] > 0.999
    )
    assert dpo["speedup"] > 0 and dpo["token_ratio"] > 1
    for side in ("ours", "trl"):
        parts = dpo[side]["parts"]
        assert all(parts[part] > 0 for part in ("attention", "matrix products", "head", "optimizer", "other"))
        assert dpo[side]["gib"] > dpo[side]["gib_above_weights"] > 0 and dpo[side]["compiled_later"]["compilations"] == 0
    assert dpo["ours"]["parts"]["fold"] > 0 == dpo["trl"]["parts"]["fold"]
    assert generation["turns"] == 2 and generation["speedup"] > 0
    assert found["versions"]["trl"] and found["device"] and found["date"]
    assert "llama: TRL, losses and gradients: dpo" in progress
