"""The loss of a fixed small batch of each algorithm, held against its formula written out on log-probabilities in float64."""

import numpy as np
import pytest
import torch
from trainings import ALGOS, config, trainer_of

from cso_lab.training.balance import balance_warning

BETA, GAMMA, SFT_WEIGHT = 0.4, 0.7, 0.3
DESIRABLE, UNDESIRABLE = 1.0, 0.6
OWN = {
    "sft": [],
    "dpo": [f"algorithm.beta={BETA}"],
    "dpo_sft": [f"algorithm.beta={BETA}", f"algorithm.sft_weight={SFT_WEIGHT}"],
    "dpo_norm": [f"algorithm.beta={BETA}"],
    "ipo": [f"algorithm.beta={BETA}"],
    "kto": [f"algorithm.beta={BETA}", f"algorithm.desirable_weight={DESIRABLE}", f"algorithm.undesirable_weight={UNDESIRABLE}"],
    "simpo": [f"algorithm.beta={BETA}", f"algorithm.gamma={GAMMA}"],
    "orpo": [f"algorithm.beta={BETA}"],
}


def log_probs(model, chat, prompt: str, response: str, whole: bool = False) -> np.ndarray:
    """log p of every response token (`whole`: of every token but the first) in float64, one row alone, no padding."""
    before, ids = chat.ids(prompt), chat.ids(prompt + response)
    first = 1 if whole else next((i for i, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), len(before))
    with torch.no_grad():
        found = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return np.array([found[i - 1, ids[i]].item() for i in range(first, len(ids))])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def sft(policy, reference, rows):
    """Mean of -log p over all response tokens of the batch."""
    return -np.concatenate([policy(row["prompt"], row["completion"]) for row in rows]).mean()


def ratios(policy, reference, rows, side, mean=False):
    reduce = np.mean if mean else np.sum
    return np.array([reduce(policy(r["prompt"], r[side])) - reduce(reference(r["prompt"], r[side])) for r in rows])


def dpo(policy, reference, rows):
    """-log sigmoid(beta ((log pi/ref)(chosen) - (log pi/ref)(rejected))), eq. 7."""
    margin = ratios(policy, reference, rows, "chosen") - ratios(policy, reference, rows, "rejected")
    return -np.log(sigmoid(BETA * margin)).mean()


def dpo_sft(policy, reference, rows):
    """DPO's loss, and SFT_WEIGHT times SFT's on the preferred replies."""
    return dpo(policy, reference, rows) + SFT_WEIGHT * sft(policy, reference, [{**r, "completion": r["chosen"]} for r in rows])


def dpo_norm(policy, reference, rows):
    """DPO's loss with log-probabilities averaged over a response's tokens."""
    margin = ratios(policy, reference, rows, "chosen", mean=True) - ratios(policy, reference, rows, "rejected", mean=True)
    return -np.log(sigmoid(BETA * margin)).mean()


def ipo(policy, reference, rows):
    """(h - 1/(2 tau))^2, h the same difference with log-probabilities averaged over a response's tokens."""
    h = ratios(policy, reference, rows, "chosen", mean=True) - ratios(policy, reference, rows, "rejected", mean=True)
    return ((h - 1 / (2 * BETA)) ** 2).mean()


def kto(policy, reference, rows):
    """w_d (1 - sigmoid(beta (r - z))) and w_u (1 - sigmoid(beta (z - r))); z = max(0, mean log-ratio of the neighbour's response)."""
    r = ratios(policy, reference, rows, "completion")
    mismatched = [{"prompt": row["prompt"], "completion": rows[i - 1]["completion"]} for i, row in enumerate(rows)]
    z = max(0.0, ratios(policy, reference, mismatched, "completion").mean())
    desirable = np.array([row["label"] for row in rows])
    assert 0 < desirable.sum() < len(rows)
    losses = np.where(desirable, DESIRABLE * (1 - sigmoid(BETA * (r - z))), UNDESIRABLE * (1 - sigmoid(BETA * (z - r))))
    return losses.mean()


def simpo(policy, reference, rows):
    """-log sigmoid(beta (mean log pi(chosen) - mean log pi(rejected)) - gamma): no reference model."""
    chosen, rejected = (np.array([policy(r["prompt"], r[side]).mean() for r in rows]) for side in ("chosen", "rejected"))
    return -np.log(sigmoid(BETA * (chosen - rejected) - GAMMA)).mean()


def orpo(policy, reference, rows):
    """-log pi(prompt and chosen) a token - beta log sigmoid(log odds(chosen) - log odds(rejected)), odds of mean log-probabilities."""
    likelihood = np.concatenate([policy(row["prompt"], row["chosen"], whole=True) for row in rows]).mean()
    chosen, rejected = (np.array([policy(r["prompt"], r[side]).mean() for r in rows]) for side in ("chosen", "rejected"))
    odds = (chosen - np.log1p(-np.exp(chosen))) - (rejected - np.log1p(-np.exp(rejected)))
    return -likelihood - (BETA * np.log(sigmoid(odds))).mean()


BY_HAND = {
    "sft": sft,
    "dpo": dpo,
    "dpo_sft": dpo_sft,
    "dpo_norm": dpo_norm,
    "ipo": ipo,
    "kto": kto,
    "simpo": simpo,
    "orpo": orpo,
}
CASES = [(algo, "lora", True, "tiny_llama") for algo in (*ALGOS, "dpo_sft", "dpo_norm")]
# The reference of full training: a second model, or log-probabilities taken before the first step.
CASES += [("dpo", "full", False, "tiny_gemma"), ("dpo", "full", True, "tiny_qwen"), ("kto", "full", False, "tiny_llama")]


@pytest.mark.parametrize(("algo", "mode", "precomputed", "backbone"), CASES)
def test_a_batchs_loss_is_the_formula_written_out(shared, data, tmp_path, algo, mode, precomputed, backbone):
    from cso_lab.training.backbone import load_model

    line = [
        f"algo={algo}",
        f"mode={mode}",
        f"backbone={backbone}",
        *OWN[algo],
        "training.batching=random",
        "training.max_rows=4",
    ]
    line += ["training.max_prompt_length=2000", f"training.precompute_ref_log_probs={precomputed}"]
    cfg = config(shared, *line)
    trainer, chat, rows, _ = trainer_of(cfg, data, tmp_path)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # a policy that is not its reference
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name or mode == "full":
                weight.add_(torch.randn(weight.shape, generator=generator) * (0.05 if mode == "lora" else 0.01))
    [batch] = list(trainer.get_train_dataloader())
    loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)).item()

    policy, reference = trainer.model.double().eval(), load_model(cfg).double()
    expected = BY_HAND[algo](*(lambda *row, m=m, **k: log_probs(m, chat, *row, **k) for m in (policy, reference)), rows)
    assert loss == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("algo", ALGOS)
def test_a_row_at_the_limit_keeps_its_whole_response_and_one_above_it_is_counted_out(shared, data, tmp_path, algo):
    """The longest response fits to the token and histories are dropped; one token less, and its rows are left out, never cut."""
    cfg = config(shared, f"algo={algo}", "training.batch_size=8", "training.batching=random")
    _, chat, rows, _ = trainer_of(cfg, data, tmp_path)
    sides = [side for side in ("chosen", "rejected", "completion") if side in rows[0]]
    longest = max(len(chat.ids(row["prompt"] + row[side])) - len(chat.ids(row["prompt"])) for row in rows for side in sides)
    shortest = min(len(chat.ids(row["prompt"])) for row in rows)
    cfg.training.max_target_length, cfg.training.max_prompt_length = longest, shortest + 10
    trainer, chat, fitted, counts = trainer_of(cfg, data, tmp_path)
    assert counts.shortened > 0 and counts.used == len(rows)
    whole = {tuple(chat.ids(row["prompt"] + row[side])[len(chat.ids(row["prompt"])) :]) for row in fitted for side in sides}
    seen = set()
    for batch in trainer.get_train_dataloader():
        seen |= set(responses(batch))
    assert seen == whole and max(map(len, seen)) == longest
    cfg.training.max_target_length = longest - 1
    *_, counts = trainer_of(cfg, data, tmp_path)
    assert counts.response_too_long > 0 and counts.used + counts.response_too_long == len(rows)


def responses(batch):
    """The tokens of a batch that a trainer counts as responses."""
    masked = [key for key in ("chosen_labels", "rejected_labels", "labels") if key in batch]
    for key in masked:
        for row in batch[key].tolist():
            yield tuple(token for token in row if token != -100)
    if not masked:
        for ids, mask in zip(batch["input_ids"].tolist(), batch["completion_mask"].tolist(), strict=True):
            yield tuple(token for token, inside in zip(ids, mask, strict=True) if inside)


def test_weights_out_of_balance_are_said_with_the_numbers():
    assert balance_warning(300, 300, 1.0, 1.0) is None
    assert balance_warning(300, 400, 1.0, 0.6) is None  # 300 / 240 = 1.25
    assert balance_warning(100, 300, 1.0, 0.5) == (
        "KTO: 100 desirable rows x 1.0 against 300 undesirable x 0.5 is 0.67 to 1, where 1 to 1.33 is recommended: "
        "algorithm.desirable_weight from 1.50 to 2.00 would give it, or algorithm.undesirable_weight from 0.25 to 0.33"
    )
    assert "is 2.00 to 1" in balance_warning(300, 300, 1.0, 0.5)


def test_kto_says_so_and_trains(shared, data, tmp_path, capfd):
    from cso_lab.training.train import train

    # 4 preferred turns and 8 dispreferred ones; Table 15's weights, 1.0 and 0.5, would balance them
    cfg = config(shared, "algo=kto", "mode=full", "algorithm.undesirable_weight=1.0")
    train(cfg, data, tmp_path)
    [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("KTO: ")]
    assert "KTO: 4 desirable rows x 1.0 against 8 undesirable x 1.0 is 0.50 to 1" in line
