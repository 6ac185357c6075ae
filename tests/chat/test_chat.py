"""The chat on the terminal as its users meet it: a process of its own, what they type coming in by a pipe."""

import re
import shutil
import signal
import subprocess

import forking
import pytest
from chats import chat, command, run_folder, trained
from omegaconf import OmegaConf
from project import ROOT

from cso_lab.chat.partner import open_run
from cso_lab.chat.texts import load_texts
from cso_lab.core.errors import UserError
from cso_lab.core.files import write_json
from cso_lab.core.records import SEEKER, SUPPORTER, Turn
from cso_lab.core.strategies import EXTES


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def base(tmp_path_factory, shared):
    return run_folder(tmp_path_factory.mktemp("runs") / "base", shared, "algo=base")


def files(folder):
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file())


@pytest.mark.long
def test_a_conversation_by_pipe(base, shared):
    open_run(base).load()  # the random weights are made once; from now on nothing may be written
    before = files(base), files(shared)
    lines = [
        "I feel low.",
        "/strategy share information",
        "What now?",
        "/undo",
        "/undo",
        "/undo",
        "/new",
        "/nwe",
        "/strategy Hugs",
    ]
    done = chat(base, "generation.max_prompt_length=600", said="\n".join([*lines, "/help", "/quit", "never read"]))
    assert done.returncode == 0, done.stderr
    out = done.stdout
    for line in load_texts().notice:
        assert out.index(line) < out.index("You: I feel low.")
    assert out.count("Strategy: ") == 2 and "chosen by the model" in out and "never read" not in out
    assert re.search(r"^Model \(Share Information\): .*\nStrategy: Share Information, asked for by you", out, re.MULTILINE)
    tables = [re.findall(r"^.? +([A-Z][\w ]+?) +([\d.]+)% ", part, re.MULTILINE) for part in out.split("Strategy: ")[1:]]
    for table in tables:
        assert [name for name, _ in table] == list(EXTES.names)
        assert sum(float(value) for _, value in table) == pytest.approx(100, abs=0.5)
    assert out.index("Taken back: What now?") < out.index("Taken back: I feel low.") < out.index("nothing to take back")
    assert "unknown command /nwe" in out and "unknown strategy 'Hugs'" in out and "/undo            take back" in out
    assert "loading the model" in done.stderr and done.stderr.count("thinking") == 2
    assert "Nothing of this conversation was saved" in out
    assert (files(base), files(shared)) == before


@pytest.mark.long
def test_the_pointer_to_human_help_comes_before_the_reply_every_time(base):
    done = chat(base, said="I feel low.\nI want to k1ll mysefl\nI dont want to live anymore\n/quit suicide\n")
    assert done.returncode == 0, done.stderr
    texts = load_texts()
    _, low, first, second, last = done.stdout.split("\nYou: ")
    assert texts.help[0] not in low and texts.after_help not in low
    for part in (first, second):
        places = [part.index(text) for text in (*texts.help, texts.after_help, "Model (")]
        assert places == sorted(places)
    assert texts.help[0] in last


@pytest.mark.long
def test_a_message_that_is_too_long_is_no_part_of_the_conversation(base):
    done = chat(base, "generation.max_prompt_length=500", said=f"{'so long ' * 500}\n/undo\nI feel low.\n")
    assert "error: system prompt and 'so long" in done.stdout and "nothing to take back" in done.stdout
    assert done.stdout.count("Strategy: ") == 1 and done.returncode == 0


@pytest.mark.long
def test_ctrl_c_leaves_cleanly(base):
    process = forking.Popen(
        command(base), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    seen = iter(process.stdout.readline, "")
    assert any("/help lists the commands" in line for line in seen)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors and "Nothing of this conversation was saved" in errors


@pytest.mark.long
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_run_that_was_copied_here_says_what_it_said_before(mode, tmp_path, tmp_path_factory):
    """Nothing of the other machine is left: neither its shared folder nor, for a whole model, the weights it started from."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    run = trained(elsewhere / "sweep" / "run", elsewhere / "shared", f"mode={mode}")
    history = [Turn(SEEKER, "I feel low.")]
    before = open_run(run).reply(history)
    untrained = run_folder(tmp_path / "untrained", tmp_path / "shared", "algo=base")
    assert open_run(untrained).reply(history).mass != before.mass
    # A cell of the same sweep that took the training over: its note names a folder of the other machine.
    other = run_folder(elsewhere / "sweep" / "other", elsewhere / "shared", "algo=sft", f"mode={mode}")
    write_json(other / "stages.json", {"train": str(run)})
    shutil.copytree(elsewhere / "sweep", tmp_path / "copied")
    shutil.rmtree(elsewhere)
    for name in ("run", "other"):
        cfg = OmegaConf.load(tmp_path / "copied" / name / "config.yaml")
        cfg.hardware.device = "cuda"
        if mode == "full":
            cfg.backbone.path = "/another/machine/weights"
        OmegaConf.save(cfg, tmp_path / "copied" / name / "config.yaml")
        after = open_run(tmp_path / "copied" / name, [f"shared_dir={tmp_path / 'shared'}"]).reply(history)
        assert after == before


def test_an_example_in_the_prompt_is_the_runs_own(tmp_path, shared, monkeypatch):
    from cso_lab.core.records import Dialogue
    from cso_lab.generation import batched_decoding
    from cso_lab.generation.decoding_strategies import WithExample
    from cso_lab.training.backbone import load_tokenizer

    run = run_folder(tmp_path / "run", shared, "algo=base", "decoding=with_example")
    with pytest.raises(UserError, match="cannot read .*example.json"):
        open_run(run)
    turns = (Turn(SEEKER, "All is grey."), Turn(SUPPORTER, "I hear you.", "Affirmation"))
    WithExample("Look:", 0).prepare([Dialogue("a", "", "", turns)], run)
    before = files(run)
    prompts, reply_ids = [], batched_decoding.reply_ids
    monkeypatch.setattr(
        batched_decoding, "reply_ids", lambda model, ids, *rest: prompts.extend(ids) or reply_ids(model, ids, *rest)
    )
    open_run(run).reply([Turn(SEEKER, "I am low.")])
    (prompt,) = map(load_tokenizer(OmegaConf.load(run / "config.yaml")).decode, prompts)
    assert "\nSeeker: All is grey.\nSupporter: (Affirmation) I hear you." in prompt
    assert files(run) == before


@pytest.mark.long
def test_what_cannot_be_talked_to_is_said_in_one_line(base, tmp_path, shared):
    nothing = run_folder(tmp_path / "untrained", shared, "algo=sft")
    api = run_folder(tmp_path / "api", shared, "algo=base", "backbone=gpt_4o", "generation.constrain=none")
    odd = run_folder(tmp_path / "odd", shared, "algo=base")
    cfg = OmegaConf.load(odd / "config.yaml")
    cfg.decoding.method = {"_target_": "collections.Counter"}
    OmegaConf.save(cfg, odd / "config.yaml")
    for arguments, said in [
        ([tmp_path / "none"], "no config.yaml in"),
        ([nothing], "no checkpoint in .*run its train stage"),
        ([api], "gpt_4o is asked over HTTP, and only models of this machine can be talked to"),
        ([odd], "collections.Counter is no decoding strategy"),
        ([base, "generation.max_tokens=3"], "unknown key under generation 'max_tokens': did you mean"),
        ([base, "seed"], "'seed' is no KEY=VALUE"),
        ([base, "--temperature", "-1"], "generation.temperature=-1: should be greater"),
        ([base, "--constrain", "formal"], "generation.constrain=formal: should be 'none', 'format' or 'likelihood'"),
        ([base, "--port", "70000"], "--port 70000"),
        ([base, "--texts", tmp_path / "none.yaml"], "cannot read"),
        ([], "RUN_DIR"),
    ]:
        with pytest.raises(UserError, match=said):
            _main(arguments)
    done = chat(tmp_path / "none")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: no config.yaml in") and not done.stdout


def _main(arguments):
    from cso_lab.chat.__main__ import main

    main([str(argument) for argument in arguments])
