"""How a model is fine-tuned. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from seedbed.configuration import at_least, between, positive
from seedbed.errors import ConfigError
from seedbed.model.adapters.config import BottleneckConfig, Ia3Config, LoraConfig, PromptsConfig
from seedbed.optim.config import OptimizerConfig
from seedbed.training.config import StageConfig


@dataclass(frozen=True, kw_only=True)
class FinetuneOptimizerConfig(OptimizerConfig):
    """Which optimizer, and its rates: a tenth of those of pretraining, so that what was learned there stays."""

    default_rate: ClassVar[float] = 1e-4

    rate: float | None = None
    """Peak learning rate of everything under adamw; left out: 0.0001. muon has four rates instead, below."""

    matrix_rate: float = 0.002
    """Peak learning rate of the matrices inside the blocks under Muon: the same value serves all sizes."""

    embedding_rate: float = 0.005
    """Peak learning rate of all that is looked up (tokens, learned positions, values) under muon, where AdamW moves
    it."""

    head_rate: float = 0.0004
    """Peak learning rate of an untied output head, and of the routers of experts, under muon, where AdamW moves
    them."""

    vector_rate: float = 0.001
    """Peak learning rate of norm weights, biases and other vectors under muon, where AdamW moves them."""


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Plain text that is gone through again, so that fine-tuning does not make the model forget it."""

    tokens: Path | None = None
    """Folder that `seedbed tokenize` wrote, with the model's tokenizer: what it was pretrained on. Left out: none."""

    share: float = 0.02
    """Share of the training rows that are such text, spread evenly. Each of its tokens is a target, while of a
    conversation only what the assistant says is one: its share of the loss is larger."""

    def __post_init__(self) -> None:
        between(self, 0, 0.9, "share")

    def unused(self) -> dict[str, str]:
        """What is for a text that is not given."""
        return {"share": "without tokens"} if self.tokens is None else {}


Method = Literal["full", "lora", "dora", "qlora", "ia3", "adapter", "prompt", "prefix", "p_tuning", "further"]
LORA_METHODS = ("lora", "dora", "qlora")
PROMPT_METHODS = ("prompt", "prefix", "p_tuning")
"""Those that put something before every text."""


@dataclass(frozen=True, kw_only=True)
class TuningConfig(StageConfig):
    """What a stage is told that begins with a model that there is: which of its weights move, or what it wears."""

    begins_texts: ClassVar[bool] = False
    """Whether the stage puts what `PROMPT_METHODS` learn before its texts."""

    model: Path
    """Model folder (ours or one of transformers), run or checkpoint to begin with."""

    validation: Path | None = None
    """Rows like those of data to validate on. Left out: a share of the data is kept apart."""

    validation_fraction: float = 0.02
    """That share, chosen by the hash of each conversation or prompt, so that none is on both sides; at least one."""

    template: str | None = None
    """Chat template: chatml, instruct, chat, llama3, alpaca, a .jinja file, or Jinja source. Left out: the one
    stored with the model's tokenizer."""

    method: Method = "full"
    """full: every weight moves. The others leave the model as it is and train an adapter, a small folder in peft's
    format. lora: two small matrices beside some layers. dora: LoRA that learns the length of each row by itself.
    qlora: LoRA over the model in NF4, an eighth as large (Dettmers et al. 2023).
    ia3: factors of outputs and inputs. adapter: small networks between the parts of blocks. prompt: tokens before every
    text; p_tuning: such that a network makes; prefix: their keys and values in every layer (P-tuning v2).
    further: the adapter that model is, trained on as it was made, over the same base."""

    freeze: list[str] = field(default_factory=list)
    """Of full: weights that rest, by the beginnings of their names, or whole ones, in which * stands for anything:
    embedding, blocks.0, "*norm*"."""

    lora: LoraConfig = field(default_factory=LoraConfig)
    """Of lora, dora and qlora."""

    ia3: Ia3Config = field(default_factory=Ia3Config)
    """Of ia3."""

    bottleneck: BottleneckConfig = field(default_factory=BottleneckConfig)
    """Of adapter."""

    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    """Of prompt, prefix and p_tuning."""

    def __post_init__(self) -> None:
        between(self, 0, 0.5, "validation_fraction")
        if self.train.horizon is not None:
            raise ConfigError(
                "train.horizon is a budget of pretrain alone", "Give --train.steps, --train.epochs or --train.minutes."
            )
        self.refuse(self.method)

    def refuse(self, method: str) -> None:
        """ConfigError for a training that an adapter of that method does not allow."""
        if method == "qlora" and self.train.parallel == "fsdp":
            raise ConfigError("train.parallel fsdp divides weights, and those of qlora are in few bits", "Take ddp.")
        if method in PROMPT_METHODS and self.train.parallel == "fsdp":
            raise ConfigError(f"train.parallel fsdp cannot divide what {method} learns", "Take ddp.")
        if method == "prefix" and (self.train.compile == "on" or self.train.recompute != "none"):
            raise ConfigError("a prefix is put into blocks as they run: neither train.compile nor train.recompute")
        if method in PROMPT_METHODS and not self.begins_texts:
            raise ConfigError(f"the method {method} is for finetune, which puts what is learned before each text")

    def unused(self) -> dict[str, str]:
        """A share that is not kept apart, and what is for another method."""
        owners = {"lora": LORA_METHODS, "ia3": ("ia3",), "bottleneck": ("adapter",), "prompts": PROMPT_METHODS}
        found = {
            f"{group}.{item.name}": f"under the method {self.method}"
            for group, methods in owners.items()
            if self.method not in methods
            for item in fields(getattr(self, group))
        }
        if self.validation is not None:
            found["validation_fraction"] = "beside validation"
        if self.method != "full":
            found["freeze"] = f"under the method {self.method}, whose base rests anyway"
        if self.method == "prompt":
            found["prompts.hidden"] = "under the method prompt, which has no network"
        if self.method in ("prompt", "prefix"):
            found["prompts.encoder"] = f"under the method {self.method}, it is for p_tuning"
        return found

    def resolve(self) -> Self:
        optimizer = self.optimizer if self.method == "full" else self.optimizer.for_adapter()
        return replace(super().resolve(), optimizer=optimizer.resolve(), lora=self.lora.resolve())


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TuningConfig):
    """Teaches a model to answer, from conversations: only what the assistant says is learned."""

    begins_texts: ClassVar[bool] = True

    data: Path
    """Conversations, .json, .jsonl, .csv, .tsv or .parquet, one file or those of a glob ('parts/train-*.parquet'): rows
    of messages, ShareGPT's conversations, prompt/response, question/answer, instruction/input/output, Open Assistant's
    trees, or text, of which all is learned."""

    overlong: Literal["error", "drop", "truncate"] = "error"
    """What happens to a conversation that is longer than a row: it ends the run, is left out, or loses its end (and is
    left out when no word of the assistant is left)."""

    optimizer: FinetuneOptimizerConfig = field(default_factory=FinetuneOptimizerConfig)
    """Which optimizer, and its rates."""

    replay: ReplayConfig = field(default_factory=ReplayConfig)
    """Plain text among the conversations."""

    tokenizer: Path | None = None
    """Folder of the tokenizer to go on with. Left out: the model's own. One with more tokens needs
    resize_vocabulary."""

    resize_vocabulary: bool = False
    """Whether embeddings and head grow for a tokenizer that has more tokens than the model's own. Otherwise it is
    refused."""

    curriculum: Literal["none", "short_first", "easy_first"] = "none"
    """In which order conversations come in the first epoch, in ten stretches; later ones are by chance. easy_first: by
    the mean loss of what the assistant says under the model as it begins, which takes a pass over all of them."""

    noise: float | None = None
    """NEFTune: noise on the embeddings while the model learns, so that it learns less by heart; 5 is usual (Jain et al.
    2023, arXiv:2310.05914). Left out: none."""

    length: int | None = None
    """Tokens of a row that conversations are packed into. Left out: the model's context, at most 512."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 2, "length")
        positive(self, "noise")
        if self.resize_vocabulary and self.method != "full":
            raise ConfigError("an adapter leaves embeddings as they are: resize_vocabulary is for the method full")


@dataclass(frozen=True, kw_only=True)
class FuseConfig:
    """Makes one model of a base and an adapter, which then needs neither."""

    adapter: Path
    """A folder in peft's file format, or a run that trained one."""

    out: Path
    """Model folder to write."""

    model: Path | None = None
    """The base: model folder, run or checkpoint. Left out: the one that the adapter names."""
