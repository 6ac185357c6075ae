"""Chat templates of every kind: what is prompt and what is reply, what is worked around, and what is refused."""

from pathlib import Path

import pytest
from templates import SMOLLM2, STORED, stored, tokenizer

from cso_lab.core.errors import UserError
from cso_lab.core.records import SEEKER, SUPPORTER, Turn, prompt_messages, supporter_message
from cso_lab.core.strategies import EXTES, parse_reply
from cso_lab.training.chat_format import ChatFormat, check_chat_template, fold_system

TURNS = [
    Turn(SEEKER, "I lost my job."),
    Turn(SUPPORTER, "That must hurt.", "Emotional Validation"),
    Turn(SEEKER, "It does, and I hide it from my wife."),
]
MESSAGES = prompt_messages(TURNS, EXTES)
REPLY = supporter_message(Turn(SUPPORTER, "You could tell her tonight.", "Collaborative Planning"))

# Their messages are lists of parts, and a plain text is lost or fails: models that see, none of them a plain language model.
OF_PARTS = ("idefics3", "llava_next", "smolvlm")

MARKS = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
ASK = "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
# as it came with the first Phi-3
DROPS_SYSTEM = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}"
    "{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}"
    "{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}"
)
# as the larger Gemma-4 models ask: an empty block in the generation prompt that no reply is given
CLOSED_BLOCK = MARKS + ASK.replace("<|assistant|>", "<|assistant|><|channel>thought\n<channel|>")
VICUNA = (
    "{% for m in messages %}{{ m.role.upper() + ': ' + m.content }}{{ eos_token if m.role == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def usable(template):
    """A tokenizer as `load_tokenizer` leaves it."""
    made = tokenizer(template)
    made.eos_token = ChatFormat(made).turn_end
    check_chat_template(made)
    return made


@pytest.mark.parametrize("name", [name for name in STORED if name not in OF_PARTS])
def test_a_reply_is_its_text_and_nothing_that_the_template_puts_before_it(name):
    chat = ChatFormat(usable(stored(name)))
    prompt, response = chat.prompt(MESSAGES), chat.response(MESSAGES, REPLY)
    assert response == REPLY["content"] + chat.tokenizer.eos_token
    for message in MESSAGES:
        assert message["content"] in prompt
    ids = chat.ids(prompt + response)
    assert ids[: len(chat.prompt_ids(MESSAGES))] == chat.prompt_ids(MESSAGES)
    assert ids.count(chat.tokenizer.eos_token_id) >= 1 and ids[-1] == chat.tokenizer.eos_token_id
    written = chat.tokenizer.decode(ids[len(chat.prompt_ids(MESSAGES)) :], skip_special_tokens=True)
    assert parse_reply(written, EXTES) == ("Collaborative Planning", "You could tell her tonight.")


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("qwen3", "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ("qwen3_5_think", "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ("qwen3_8", "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ("glm4moe", "<|assistant|>\n<think></think>\n"),
        ("nemotron_3_nano", "<|im_start|>assistant\n<think></think>"),
        ("gptoss", "<|start|>assistant<|channel|>final<|message|>"),
        ("muse_glimmer", "<|start|>assistant to=user<|message|>"),
        ("gemma4_v5", "<|turn>model\n"),
        # opened in the generation prompt and stripped from the history: a reply stands where no thinking was asked for
        ("deepseek_r1_distill", "<｜Assistant｜>"),
        ("deepseekv3", "<｜Assistant｜>"),
    ],
)
def test_marks_before_a_reply_end_the_prompt_and_thinking_is_off(name, ending):
    prompt = ChatFormat(usable(stored(name))).prompt(MESSAGES)
    assert prompt.endswith(ending)
    assert prompt.count("<think>") == prompt.count("</think>")


def test_a_thinking_template_without_a_switch_still_gives_a_closed_block():
    without = stored("qwen3_5_think").replace("enable_thinking", "deliberate")
    assert ChatFormat(usable(without)).prompt(MESSAGES).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert ChatFormat(usable(CLOSED_BLOCK)).prompt(MESSAGES).endswith("<|assistant|><|channel>thought\n<channel|>")


def test_variables_of_the_configuration_are_the_templates():
    qwen, chat = usable(stored("qwen3")), ChatFormat(usable(stored("llama3_2")), {"date_string": "1 Jan 2030"})
    assert "Today Date: 1 Jan 2030" in chat.prompt(MESSAGES)
    # Here a reply follows the prompt at once, whatever the switch says; a training on a server's behalf renders the same rows.
    for variables in ({}, {"enable_thinking": False}, {"enable_thinking": True}):
        chat = ChatFormat(qwen, variables)
        prompt, response = chat.prompt(MESSAGES), chat.response(MESSAGES, REPLY)
        assert prompt.endswith("<think>\n\n</think>\n\n") and response == REPLY["content"] + "<|im_end|>"
        whole = qwen.apply_chat_template([*MESSAGES, REPLY], tokenize=False, enable_thinking=False)
        assert (prompt + response) == whole.rstrip()


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("qwen3", {"enable_thinking": False}),
        ("qwen3_5_think", {"enable_thinking": False}),
        ("glm4moe", {"enable_thinking": False}),
        ("llama3_1", {}),
        ("qwen2_5", {}),
        ("gemma", {}),
        ("deepseek_r1_distill", {}),
    ],
)
def test_a_server_is_sent_the_variables_that_make_its_prompt_ours(name, variables):
    made = usable(stored(name))
    chat = ChatFormat(made)
    assert chat.variables_of_requests() == variables
    messages = fold_system(MESSAGES) if chat.folds_system else MESSAGES
    theirs = made.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **chat.variables_of_requests())
    if name != "deepseek_r1_distill":  # it opens a block of reasoning that no variable turns off
        assert theirs.rstrip() == chat.prompt(MESSAGES).rstrip()
    # What a user sets is sent in any case.
    assert ChatFormat(made, {"mood": "calm"}).variables_of_requests() == variables | {"mood": "calm"}


@pytest.mark.parametrize("template", [SMOLLM2, *map(stored, ("llama3", "llama3_1", "qwen2_5", "gemma"))])
def test_plain_templates_give_prompts_and_replies_byte_for_byte_as_they_render_them(template):
    chat = ChatFormat(usable(template))
    messages = fold_system(MESSAGES) if chat.folds_system else MESSAGES
    prompt = chat.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    whole = chat.tokenizer.apply_chat_template([*messages, REPLY], tokenize=False)
    assert chat.folds_system == (template == stored("gemma"))
    assert chat.prompt(MESSAGES) == prompt
    assert chat.prompt(MESSAGES) + chat.response(MESSAGES, REPLY) == whole.rstrip()


def test_a_system_prompt_that_is_dropped_without_a_word_opens_the_first_user_turn():
    chat = ChatFormat(usable(DROPS_SYSTEM))
    assert chat.folds_system
    assert chat.prompt(MESSAGES).startswith(f"<s><|user|>\n{MESSAGES[0]['content']}\n\nI lost my job.<|end|>")
    assert chat.response(MESSAGES, REPLY) == REPLY["content"] + "<|end|>"
    assert not ChatFormat(usable(MARKS + ASK)).folds_system


def test_a_system_prompt_that_stands_in_the_last_user_turn_is_not_written_twice():
    last = MARKS.replace("{{ '<|' + m.role", "{{ '' if m.role == 'system' else '<|' + m.role").replace(
        "m.content +", "(messages[0].content if loop.last and messages[0].role == 'system' else '') + m.content +"
    )
    chat = ChatFormat(usable(last + ASK))
    assert chat.prompt(MESSAGES).count(MESSAGES[0]["content"]) == 1 and not chat.folds_system
    assert chat.response(MESSAGES, REPLY) == REPLY["content"] + "<|end|>"


@pytest.mark.parametrize("opening", ["{% if loop.index0 > first or m.role != 'assistant' %}", None])
def test_an_opening_reply_that_is_dropped_is_not_shown(opening):
    messages = prompt_messages([Turn(SUPPORTER, "Hello!", "Affirmation"), Turn(SEEKER, "Hi.")], EXTES)
    if opening is None:
        assert ChatFormat(usable(MARKS + ASK)).fit(messages, 10_000) == messages
        return
    first = "{% set first = 1 if messages[0].role == 'system' else 0 %}"
    template = first + MARKS.replace("{{", opening + "{{").replace("}}", "}}{% endif %}") + ASK
    assert ChatFormat(usable(template)).fit(messages, 10_000) == [messages[0], messages[2]]


def test_what_ends_a_reply_is_the_first_token_after_it_or_the_tokenizers_eos():
    assert ChatFormat(tokenizer(stored("phi3"))).turn_end == "<|end|>"
    nothing = MARKS.replace("<|end|>", "\n") + ASK
    chat = ChatFormat(usable(nothing))
    assert chat.turn_end == "</s>" and chat.response(MESSAGES, REPLY) == REPLY["content"] + "</s>"


def test_blanks_that_the_tokenizer_joins_with_the_reply_are_not_the_prompts():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    made = tokenizer(VICUNA)
    plain = ChatFormat(made)
    assert plain.prompt(MESSAGES).endswith("ASSISTANT: ") and plain.response(MESSAGES, REPLY).startswith("(")

    vocabulary = {byte: i for i, byte in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    joining = Tokenizer(models.BPE(vocab=vocabulary | {"Ġ(": len(vocabulary)}, merges=[("Ġ", "(")]))
    joining.pre_tokenizer, joining.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made = type(made)(tokenizer_object=joining, eos_token="</s>", chat_template=VICUNA)
    check_chat_template(made)
    chat = ChatFormat(made)
    assert chat.prompt(MESSAGES).endswith("ASSISTANT:") and chat.response(MESSAGES, REPLY).startswith(" (")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (MARKS.replace("messages %}", "messages[-1:] %}") + ASK, "lacks the system text"),
        (MARKS.replace("messages %}", "messages[:2] + messages[3:] %}") + ASK, "lacks the user text"),
        (MARKS.replace("m.content", "m.content | lower") + ASK, "lacks the system text"),
        (MARKS.replace("m.content", "m.parts[0].text") + ASK, "it fails"),
        ("{{ raise_exception('not a chat model') }}", r"it fails \(not a chat model\)"),
        (
            MARKS.replace("messages %}", "(messages if add_generation_prompt else messages[:-1]) %}") + ASK,
            "text of the reply after",
        ),
        (MARKS.replace("<|end|>", "\n### End\n") + ASK, "ends a reply with '### End\\\\n'"),
        *((stored(name), "it fails" if name == "llava_next" else "lacks the system text") for name in OF_PARTS),
    ],
)
def test_a_template_that_cannot_be_relied_on_is_refused_in_one_line(template, reason):
    with pytest.raises(UserError, match=f"the chat template of .* cannot be used: .*{reason}.*backbone.path") as refused:
        usable(template)
    assert "\n" not in str(refused.value)


def test_a_tokenizer_that_cannot_be_relied_on_is_refused_in_one_line():
    from tokenizers import normalizers, processors

    appends = tokenizer(MARKS + ASK)
    appends.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A !", special_tokens=[("!", 0)])
    with pytest.raises(UserError, match="tokens of a prompt are not the first ones"):
        check_chat_template(appends)
    loses = tokenizer(MARKS + ASK)
    loses.eos_token = "<|end|>"
    loses.backend_tokenizer.normalizer = normalizers.Replace("(", "")
    with pytest.raises(UserError, match="is read back from its tokens as 'Emotional Validation"):
        check_chat_template(loses)
    other = tokenizer(MARKS + ASK)
    with pytest.raises(UserError, match="does not end with the tokenizer's EOS token '</s>'"):
        check_chat_template(other)


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1_distill"])
def test_rows_generation_and_chat_are_shown_the_same_prompt(name, tmp_path, monkeypatch):
    from trainings import config

    from cso_lab.generation import batched_decoding as decode
    from cso_lab.generation.local import LocalModel
    from cso_lab.training.backbone import load_tokenizer, prepare_backbone
    from cso_lab.training.rows import fit_rows

    cfg = config(tmp_path, "backbone=tiny_qwen", "generation.max_new_tokens=1")
    path = Path(prepare_backbone(cfg))
    template = stored(name).replace("<｜end▁of▁sentence｜>", "<|im_end|>")
    (path / "chat_template.jinja").write_text(template, encoding="utf-8")
    cfg.backbone.path = str(path)
    chat = ChatFormat(load_tokenizer(cfg))
    (row,), _ = fit_rows([{"prompt": MESSAGES, "completion": [REPLY]}], chat, 10_000, 512, None, seed=0)
    assert row["completion"] == REPLY["content"] + "<|im_end|>"

    shown = []
    for name in ("reply_ids", "opening_log_probabilities"):
        function = getattr(decode, name)
        monkeypatch.setattr(
            decode, name, lambda model, prompts, *rest, run=function: shown.extend(prompts) or run(model, prompts, *rest)
        )
    model = LocalModel(cfg, None, EXTES)
    assert model([MESSAGES])[0].cut
    model.opening_probabilities(MESSAGES)
    assert shown == [chat.ids(row["prompt"])] * 2
