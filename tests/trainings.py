"""Small trainings for tests: configurations of tiny random models."""

from project import composed

ALGOS = ("sft", "dpo", "ipo", "kto", "simpo", "orpo")
ARCHITECTURES = ("tiny_llama", "tiny_qwen", "tiny_gemma")


def config(shared, *overrides):
    """Returns the configuration of a training of two steps on a tiny model; shared files go below the folder `shared`."""
    fixed = ["backbone=tiny_llama", f"shared_dir={shared}", "hardware=cpu", "training.dtype=float32", "training.batch_size=4"]
    fixed += ["training.learning_rate=1e-3", "training.warmup_ratio=0", "training.max_steps=2"]
    return composed(*fixed, *overrides)


def trainer_of(cfg, data, out):
    """Returns (trainer, its chat format, its rows) just before the training, with all rows in one batch."""
    from cso_lab.training.arguments import batches, trainer_arguments
    from cso_lab.training.backbone import load_tokenizer
    from cso_lab.training.chat_format import ChatFormat
    from cso_lab.training.rows import fit_rows, read_rows
    from cso_lab.training.trainer import build_trainer

    chat = ChatFormat(load_tokenizer(cfg))
    limits = (cfg.training.max_prompt_length, cfg.training.max_target_length)
    rows, counts = fit_rows(read_rows(data, cfg.algorithm.rows), chat, *limits, cfg.training.max_rows, 0)
    return build_trainer(cfg, trainer_arguments(cfg, *batches(cfg), out), rows, chat.tokenizer, out, None), chat, rows, counts
