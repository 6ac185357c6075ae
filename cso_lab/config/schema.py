"""The schema of the composed configuration: one model a node, with the values that every key may have.

The stages trust it: their values have been checked before any work starts. An OpenNode is one whose YAML a user may write, with keys for
classes of their own; a Node takes no key beside its own. Nodes that have no model here (decoding, finetune_mode) are checked by
what reads them.
"""

import re
from typing import Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from cso_lab.config.clients import Limits, Roles, ServedClient, Structured
from cso_lab.config.extra_fields import Extra
from cso_lab.config.serving import Serving
from cso_lab.config.validation import Count, Flag, Natural, Node, OpenNode, Temperature, ZeroOrMore, check_node
from cso_lab.core.published import table_names

Name = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1, strict=True, allow_inf_nan=False)]
Intensity = Annotated[int, Field(ge=1, le=10, strict=True)]
Dtype = Literal["auto", "bfloat16", "float32"]
Device = Literal["auto", "cpu", "cuda"]
# A class or function that the configuration names by `_target_`, with its settings: Hydra checks it, see pipeline/check.py.
Target = dict[str, Any]


def _part(value: object) -> object:
    """Raises ValueError if a value is not i/n with 1 <= i <= n."""
    numbers = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", str(value))
    if not numbers or not 1 <= int(numbers[1]) <= int(numbers[2]):
        raise ValueError("must be i/n with 1 <= i <= n, such as 1/1 (all of them) or 2/4")
    return value


class Report(Node):
    """`report`."""

    folder: str | None
    table: Annotated[Literal[table_names()] | None, BeforeValidator(lambda table: table if table is None else str(table))]


class Data(OpenNode):
    """`data`: a corpus, and its split."""

    test_share: Share
    validation_share: Share
    split_seed: Natural
    seed_dialogues: Count | None
    shard: Annotated[Any, AfterValidator(_part)]


class Inspection(Node):
    """`inspection`: what counts as a near-duplicate."""

    words: Count
    similarity: Annotated[float, Field(gt=0, le=1)]
    shortest: Natural


class Search(OpenNode):
    """`mcts`: the search of section 3.1."""

    c: NotNegative
    prior_temperature: Positive
    gold_visits: Count
    gold_prior: Annotated[float, Field(gt=0, lt=1)]
    rollout_rounds: Natural
    min_iterations: Natural
    max_iterations: Natural
    min_ends: Natural
    max_ends: Count
    cache_replies: Flag
    speculation: Natural
    leaf_batch_size: Count
    extend_negatives: Flag


class Preferences(OpenNode):
    """`preferences`: the dataset built from trees."""

    theta: float
    min_end_visits: Natural
    dialogues: Natural | None
    seed: Natural
    gold: Flag = True
    choose: Literal["all", "nearest", "favourite"] = "all"
    balance: Literal["none", "strategy"] = "none"


class Training(Node):
    """`training`, and `algorithm.start.training` of the training that an algorithm starts from."""

    recipe: str
    learning_rate: Positive
    num_train_epochs: Positive
    batch_size: Count
    per_device_batch_size: Count | None
    share_prefixes: Flag
    batching: Literal["tree", "random"]
    tokens_per_tree: Count
    tree_mask: Literal["auto", "blocks", "dense", "flex"]
    max_activation_tokens: Count
    max_steps: Annotated[int, Field(ge=-1, strict=True)]
    max_target_length: Count
    max_prompt_length: Count
    # The names of schedulers and optimizers are those of the transformers library, which is asked where a training is set up.
    lr_scheduler_type: str
    warmup_ratio: Share
    weight_decay: NotNegative
    max_grad_norm: Positive
    optim: str
    gradient_checkpointing: Literal["auto", True, False]
    dtype: Dtype
    max_rows: Count | None
    save_steps: Count
    logging_steps: Count
    seed: Natural
    precompute_ref_log_probs: Flag


class LocalGeneration(OpenNode):
    """The keys of `generation` that a model in this process depends on."""

    engine: Literal["local", "server"]
    max_new_tokens: Count | None
    batch_size: Count
    temperature: Temperature | None
    max_prompt_length: Count
    constrain: Literal["none", "format", "likelihood"]
    max_turns: Count | None
    dtype: Dtype


class Generation(LocalGeneration):
    """`generation`."""

    model_config = ConfigDict(extra="forbid")

    dialogues: Literal["test", "validation"]
    seed: Natural
    client: ServedClient


class BertScore(Node):
    """`evaluation.bertscore`: the encoder of BERTScore."""

    model: str | None
    layers: Count | None


class Evaluation(Node):
    """`evaluation`: the test set and the turns drawn for it, and metrics of the texts."""

    testset: Literal["turns", "strategy"]
    testset_seed: Natural
    shortest: Count
    longest: Count
    cuts: Annotated[int, Field(ge=2, strict=True)]
    text: list[Literal["bleu", "chrf", "distinct", "length", "bertscore"]]
    bertscore: BertScore


class ConversationPlayer(Node):
    """`conversation.seeker` and `conversation.harm`: simulated ones have a name alone."""

    name: Name
    model: str | None = None
    temperature: Temperature | None = None
    max_tokens: Count | None = None
    extra: Extra = None
    structured: Structured = "auto"
    personas: dict[str, str] = {}
    system: str = ""
    query: str = ""


class Conversation(Node):
    """`conversation`: who the seekers of whole conversations are, and how long they stay."""

    seekers: Count
    max_turns: Count
    seed: Natural
    cards: str | None
    personas: Annotated[list[str], Field(min_length=1)]
    weakest: Intensity
    strongest: Intensity
    threshold: Annotated[float, Field(ge=0, le=10, strict=True, allow_inf_nan=False)]
    reference: Literal["gold", "strategist", "random"] | None
    seeker: ConversationPlayer
    harm: ConversationPlayer


class Hardware(Node):
    """`hardware`: device and processes of a training."""

    device: Device
    processes: Count
    nodes: Count
    launcher: list[str]
    deepspeed: dict[str, Any] | None
    offload: Flag
    memory: Positive | None
    flops: Positive | None


class Generator(OpenNode):
    """`algorithm.generator`: what the training of the generator has in place of the planner's keys."""

    rows: Literal["wordings", "pairs"]
    strategy_weight: ZeroOrMore
    response_weight: ZeroOrMore


class Algorithm(OpenNode):
    """`algorithm`: the keys that every algorithm has; its hyperparameters stand beside them, of which some are checked here."""

    name: Name
    label: str
    recipe: str
    rows: Literal["pairs", "kto", "sft", "prompts"] | None
    trainer: Target | None
    arguments: Target | None
    sft_weight: ZeroOrMore = 1.0
    strategy_weight: ZeroOrMore = 1.0
    response_weight: ZeroOrMore = 1.0
    generator: Generator | None = None


def _template_variables(values: dict) -> dict:
    """Raises ValueError if a variable is one that every prompt sets itself."""
    if taken := sorted(
        {"messages", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize"} & values.keys()
    ):
        raise ValueError(f"must not hold {taken[0]}, which every prompt sets itself")
    return values


class Backbone(OpenNode):
    """`backbone`; the rest of it is checked by what loads the model."""

    chat_template_kwargs: Annotated[dict[str, Any], AfterValidator(_template_variables)] | None = None


class Toxicity(OpenNode):
    """`toxicity`: a scorer and the settings it has; not every one is asked over a client."""

    name: Name
    scorer: Target | None
    client: Limits = None
    temperature: Temperature | None = None
    max_tokens: Count | None = None
    extra: Extra = None
    structured: Structured = "auto"
    language: str = ""


class Tracking(OpenNode):
    """`tracking`: a tracker and its settings; one that shows nothing has none."""

    mode: Literal["auto", "online", "offline"] = "auto"
    project: Name = "cso_lab"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = []
    log_artifacts: Flag = True
    files_up_to_mb: NotNegative | None = None
    prediction_rows: Natural | None = None


class Configuration(OpenNode):
    """The whole configuration. Its fields stand in the order in which the first value that cannot work is named."""

    roles: Roles
    backbone: Backbone
    seed: Natural
    rounds: Count
    round_start: Literal["previous", "backbone"]
    rerun: Flag
    estimate: Flag
    debug: Flag
    report: Report
    data: Data
    inspection: Inspection
    mcts: Search
    preferences: Preferences
    algorithm: Algorithm
    training: Training
    generation: Generation
    serving: Serving
    evaluation: Evaluation
    conversation: Conversation
    hardware: Hardware
    toxicity: Toxicity
    tracking: Tracking


def check_schema(cfg: DictConfig) -> None:
    """Raises UserError, which names the first key whose value alone cannot work, with what would."""
    check_node(cfg, "", Configuration)


def check_training(cfg: DictConfig) -> None:
    """Raises UserError as `check_schema` does, for the keys of a training alone."""
    check_node(cfg, "training", Training)


def check_local_generation(cfg: DictConfig) -> None:
    """Raises UserError as `check_schema` does, for what a model in this process depends on alone.

    The rest of a run's configuration may be that of another machine.
    """
    check_node(cfg, "generation", LocalGeneration)
    check_node(cfg, "hardware.device", Device)
    check_node(cfg, "backbone", Backbone)
