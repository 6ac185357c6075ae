"""The keys and values of conversations, carried from turn to turn: they save time and change no reply."""

import pytest
from project import composed


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


def config(shared, backbone):
    return composed(f"backbone={backbone}", "algo=base", f"shared_dir={shared}", "training.dtype=float32", "hardware=cpu")


@pytest.mark.parametrize("backbone", ["tiny_llama", "tiny_gemma"])
def test_conversations_that_are_carried_on_get_the_replies_of_new_ones(shared, backbone):
    """Turns of different lengths, a conversation that leaves, two that begin alike, and one that loses its oldest turns."""
    from cso_lab.generation.batched_decoding import CarriedContexts, Decoding, reply_ids
    from cso_lab.training.backbone import load_model

    model, decoding = load_model(config(shared, backbone)), Decoding(max_new_tokens=5, temperature=0.0, ends=(7,))
    system, carried = list(range(20, 40)), CarriedContexts()
    prompts = [[*system, 50], [*system, 50], [*system, 60, 61, 62], [*system, 70, 71], [*system, *range(80, 95)]]
    for turn in range(4):
        fresh = reply_ids(model, prompts, decoding)
        assert reply_ids(model, prompts, decoding, (), carried) == fresh
        said = [[100 + turn, *range(200, 200 + 3 * row + turn)] for row in range(len(prompts))]
        prompts = [[*prompt, *reply, *words] for prompt, reply, words in zip(prompts, fresh, said, strict=True)]
        if turn == 1:
            prompts = prompts[1:]
        if turn == 2:
            prompts[2] = [*system, *prompts[2][len(system) + 6 :]]


def test_of_a_conversation_only_the_new_tokens_are_computed(shared):
    from cso_lab.generation.batched_decoding import CarriedContexts, Decoding, reply_ids
    from cso_lab.training.backbone import load_model

    model, decoding = load_model(config(shared, "tiny_llama")), Decoding(max_new_tokens=1, temperature=0.0, ends=())
    computed, carried, prompt = [], CarriedContexts(), list(range(20, 60))
    model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: computed.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    reply_ids(model, [prompt], decoding, (), carried)
    assert computed == [39, 1]
    computed.clear()
    reply_ids(model, [[*prompt, 70, 71, 72]], decoding, (), carried)
    assert computed == [3, 1]
