"""Rows by each family's chat template: what the trainers get, token for token, and what is dropped to make it fit."""

import pytest
from omegaconf import OmegaConf
from project import option

from cso_lab.core.errors import UserError
from cso_lab.core.files import write_jsonl
from cso_lab.training.chat_format import ChatFormat
from cso_lab.training.rows import fit_rows, read_rows

SYSTEM = {"role": "system", "content": "Be kind."}
REPLY = {"role": "assistant", "content": "(Affirmation) You are strong."}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    from cso_lab.training.backbone import load_tokenizer

    shared = tmp_path_factory.mktemp("shared")

    def chat(name):
        backbone = option("backbone", name)
        return ChatFormat(load_tokenizer(OmegaConf.create({"backbone": backbone, "shared_dir": str(shared)})))

    return {name: chat(name) for name in ("tiny_llama", "tiny_qwen", "tiny_gemma")}


EXPECTED = {
    "tiny_llama": (
        "<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "(Affirmation) You are strong.<|eot_id|>",
    ),
    "tiny_qwen": (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
        "(Affirmation) You are strong.<|im_end|>",
    ),
    "tiny_gemma": (
        "<start_of_turn>user\nBe kind.\n\nHello<end_of_turn>\n<start_of_turn>model\n",
        "(Affirmation) You are strong.<end_of_turn>",
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_prompt_and_response_are_what_the_template_writes(chats, name):
    chat = chats[name]
    messages = [SYSTEM, user("Hello")]
    assert (chat.prompt(messages), chat.response(messages, REPLY)) == EXPECTED[name]
    ids = chat.ids(chat.prompt(messages) + chat.response(messages, REPLY))
    # one BOS where there is one, one end of turn, and that is the token the trainers take for EOS
    if chat.tokenizer.bos_token_id is not None:
        assert ids.count(chat.tokenizer.bos_token_id) == 1 and ids[0] == chat.tokenizer.bos_token_id
    assert ids[-1] == chat.tokenizer.eos_token_id and ids[-2] != chat.tokenizer.eos_token_id
    assert ids[: len(chat.prompt_ids(messages))] == chat.prompt_ids(messages)
    prompt, response = EXPECTED[name]
    assert chat.response_length(prompt, chat.ids(prompt), response) == len(ids) - len(chat.prompt_ids(messages))


def test_a_template_that_renders_a_reply_otherwise_still_gives_the_reply(chats):
    chat = ChatFormat(chats["tiny_qwen"].tokenizer)
    kept = chat.tokenizer.chat_template
    try:
        chat.tokenizer.chat_template = kept.replace("assistant\n' }}", "assistant\n<think></think>' }}")
        assert chat.prompt([SYSTEM, user("Hello")]).endswith("<think></think>")
        assert chat.response([SYSTEM, user("Hello")], REPLY) == "(Affirmation) You are strong.<|im_end|>"
    finally:
        chat.tokenizer.chat_template = kept


def test_the_oldest_turns_go_first_and_a_user_turn_opens_what_is_left(chats):
    chat = chats["tiny_llama"]
    messages = [SYSTEM, user("one"), assistant("two"), user("three"), assistant("four"), user("five")]
    length = {start: len(chat.prompt_ids([SYSTEM, *messages[start:]])) for start in (1, 3, 5)}
    assert chat.fit(messages, length[1]) == messages
    assert chat.fit(messages, length[1] - 1) == [SYSTEM, *messages[3:]]
    assert chat.fit(messages, length[3] - 1) == [SYSTEM, messages[5]]
    assert chat.fit(messages, length[5] - 1) is None


def test_an_opening_reply_stays_where_the_template_takes_it(chats):
    messages = [SYSTEM, assistant("Hi"), user("Hello")]
    assert chats["tiny_llama"].fit(messages, 1000) == messages
    assert chats["tiny_gemma"].fit(messages, 1000) == [SYSTEM, user("Hello")]
    whole = len(chats["tiny_llama"].prompt_ids(messages))
    assert chats["tiny_llama"].fit(messages, whole - 1) == [SYSTEM, user("Hello")]


def test_rows_that_do_not_fit_are_left_out_and_counted(chats):
    chat = chats["tiny_llama"]
    short = {"prompt": [SYSTEM, user("Hello")], "chosen": [REPLY], "rejected": [assistant("(Affirmation) No.")]}
    long_prompt = {**short, "prompt": [SYSTEM, user("Hello " * 200)]}
    long_response = {**short, "rejected": [assistant("(Affirmation) " + "No. " * 200)]}
    long_history = {**short, "prompt": [SYSTEM, user("Hello " * 200), assistant("Yes"), user("Hello")]}
    rows, counts = fit_rows([short, long_prompt, long_response, long_history], chat, 100, 50, None, seed=0)
    assert (counts.read, counts.used, counts.shortened) == (4, 2, 1)
    assert (counts.prompt_too_long, counts.response_too_long, counts.not_chosen) == (1, 1, 0)
    expected = {"prompt": chat.prompt(short["prompt"]), "chosen": chat.response(short["prompt"], REPLY)}
    expected |= {"rejected": "(Affirmation) No.<|eot_id|>", "dialogue": ""}
    assert rows == [expected, expected]
    with pytest.raises(UserError, match=r"no training row fits.*training.max_prompt_length \(5\)"):
        fit_rows([short], chat, 5, 50, None, seed=0)


def test_a_target_length_is_reached_exactly(chats):
    chat, row = chats["tiny_qwen"], {"prompt": [SYSTEM, user("Hello")], "completion": [REPLY], "label": True}
    prompt, response = chat.prompt(row["prompt"]), chat.response(row["prompt"], REPLY)
    length = chat.response_length(prompt, chat.ids(prompt), response)
    rows, _ = fit_rows([row], chat, 100, length, None, seed=0)
    assert rows[0]["label"] is True and rows[0]["completion"] == "(Affirmation) You are strong.<|im_end|>"
    with pytest.raises(UserError, match="no training row fits"):
        fit_rows([row], chat, 100, length - 1, None, seed=0)


def test_max_rows_is_a_seeded_choice(chats):
    rows = [{"prompt": [SYSTEM, user(f"number {i}")], "completion": [REPLY]} for i in range(20)]
    chosen = {seed: fit_rows(rows, chats["tiny_qwen"], 100, 50, 5, seed) for seed in (0, 1)}
    assert chosen[0] == fit_rows(rows, chats["tiny_qwen"], 100, 50, 5, 0)
    assert chosen[0][0] != chosen[1][0]
    assert (chosen[0][1].used, chosen[0][1].not_chosen) == (5, 15)


def test_a_row_that_is_none_is_named(tmp_path):
    good = {"prompt": [user("Hello")], "completion": [REPLY]}
    write_jsonl(tmp_path / "sft.jsonl", [good, {"prompt": [user("Hello")], "chosen": [REPLY]}])
    with pytest.raises(UserError, match="sft.jsonl:2: expected a prompt"):
        read_rows(tmp_path, "sft")
    write_jsonl(tmp_path / "sft.jsonl", [])
    with pytest.raises(UserError, match="holds no row"):
        read_rows(tmp_path, "sft")


def test_a_tiny_models_tokenizer_reads_english_by_words_and_can_write_any_text(chats):
    english, other = "I have not slept well for weeks, and I do not know what to do.", "Grüße 🙂 日本\n\tx"
    for chat in chats.values():
        assert len(chat.ids(english)) < 25
        assert chat.tokenizer.decode(chat.ids(other), skip_special_tokens=True) == other
