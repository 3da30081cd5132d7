"""What a model is made of. No torch here: the command line reads this before a model exists."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

from seedbed.configuration import at_least, between, positive
from seedbed.errors import ConfigError

if TYPE_CHECKING:
    from seedbed.tokenizers.tokenizer import Tokenizer

DERIVED = cast(int, None)
"""A size that is left out: `resolve()` fills it in, so it is typed as the number that it then is."""

GATED = ("swiglu", "geglu", "reglu")
"""Activations of a feed-forward with a gate: three matrices instead of two."""

NO_EXPERTS = {
    **{"experts_active": 0, "experts_shared": 0, "expert_width": 0, "experts_every": 1, "experts_dense_first": 0},
    **{"router": "softmax", "router_normalised": False, "balance_loss": 0.01, "balance_rate": 0.0},
    "router_z_loss": 0.001,
}
"""What the fields about experts hold in a resolved config that has none."""

VALUE_GATE_INPUTS = 32
"""Coordinates of the residual stream that decide how much of its value embedding a token takes up."""

LONGEST_CONVOLUTION = 64
"""Positions of a convolution: far more than any paper's, and each costs a pass over the activations."""

WIDTH_OF_LAYER, LAYERS_OF_WIDE_HEADS = 64, 16
"""Width for each layer of `depth` (nanochat, Karpathy 2025), and from how many layers on heads are of 128, not 64."""

LARGEST_SIZE, LARGEST_CONTEXT, MOST_LAYERS, LARGEST_VOCABULARY, MOST_EXPERTS = 2**20, 2**20, 10_000, 2**24, 2**12
"""Far beyond any model, and small enough that no product of them overflows: a config may come from a stranger."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The default architecture (Qwen3): RMSNorm, RoPE, grouped queries with per-head QK-norm, SwiGLU, no bias.

    Every other choice, its paper and the Hugging Face class that carries it: docs/models.md.
    """

    vocab_size: int = DERIVED
    """Number of token ids. Left out: taken from the tokenizer."""

    depth: int | None = None
    """One knob for all sizes: so many layers, 64 times as wide, in heads of 64, from 16 layers on of 128. `pretrain`
    takes batch, rates, decay and budget from it too. What is given itself wins; docs/presets.md tells the rules."""

    layers: int = DERIVED
    """Transformer blocks, one after the other. Left out: depth, else 4."""

    width: int = DERIVED
    """Width of the residual stream. Left out: 64 for each layer of depth, else 256."""

    heads: int = DERIVED
    """Query heads. Left out: one for every 64 of width, or as depth says."""

    kv_heads: int = DERIVED
    """Key/value heads, shared by groups of query heads. Left out: as many as query heads."""

    head_width: int = DERIVED
    """Width of one head. Left out: width / heads."""

    ff_width: int = DERIVED
    """Inner width of the feed-forward. Left out: 8/3 of width, rounded up to a multiple of 64, where activation is
    gated; else 4 times width."""

    context: int = 512
    """Longest sequence, in tokens; at most 1,048,576."""

    positions: Literal["rope", "alibi", "learned", "sinusoidal", "none"] = "rope"
    """How order is told. rope: queries and keys are turned. alibi: attention falls off with distance. learned,
    sinusoidal: a vector is added to each embedding. none: only the causal mask tells it."""

    rope_base: float = 10_000.0
    """Base of the rotary frequencies."""

    rope_scaling: Literal["none", "linear", "ntk", "yarn", "llama3"] = "none"
    """How RoPE is stretched over a context longer than the one it was trained on: positions divided (linear), the base
    raised (ntk), slow frequencies alone divided, and attention sharpened (yarn, the best of them) or not (llama3)."""

    rope_factor: float = 1.0
    """How many times longer the context becomes under rope_scaling."""

    rope_original_context: int | None = None
    """Context before it was stretched, which yarn and llama3 tell slow from fast frequencies by. Left out: context
    divided by rope_factor."""

    norm: Literal["rms", "layer"] = "rms"
    """rms divides by the root mean square; layer subtracts the mean first."""

    norm_bias: bool = False
    """Whether a layer norm also adds a learned vector."""

    norm_place: Literal["pre", "post", "sandwich"] = "pre"
    """Where norms stand: before attention and feed-forward (pre), after their sum with the residual stream (post), or
    before and after each of them (sandwich)."""

    norm_epsilon: float = 1e-6
    """Added to the mean square in every norm."""

    qk_norm: bool = True
    """Whether queries and keys are normalised per head: attention scores stay bounded, higher rates stay stable."""

    activation: Literal["swiglu", "geglu", "reglu", "gelu", "relu", "relu2", "silu"] = "swiglu"
    """Nonlinearity of the feed-forward: with a gate (swiglu, geglu, reglu) or plain (gelu, relu, relu2, silu)."""

    attention_bias: bool = False
    """Whether the four projections of attention add a learned vector."""

    attention_output_bias: bool = True
    """Of the four, whether the last one does, where the others do; false as in Qwen2."""

    feedforward_bias: bool = False
    """Whether the matrices of the feed-forward add a learned vector."""

    experts: int = 0
    """Feed-forwards of which each token goes through a few, in place of one: more parameters at the same computation.
    0: one."""

    experts_active: int = DERIVED
    """Experts that each token goes through. Left out: 2, or 1 of 1."""

    experts_shared: int = 0
    """Experts beside those, which every token goes through."""

    expert_width: int = DERIVED
    """Inner width of one expert. Left out: such that those a token goes through are together as wide as ff_width,
    rounded up to a multiple of 16."""

    experts_every: int = 1
    """Every so many blocks, the last of them, has experts; the others one feed-forward of ff_width."""

    experts_dense_first: int = 0
    """Blocks at the beginning that have one feed-forward of ff_width all the same."""

    router: Literal["softmax", "sigmoid"] = "softmax"
    """What scores the experts: against each other (softmax), or each by itself (sigmoid)."""

    router_normalised: bool = cast(bool, None)
    """Whether the weights of a token's experts are made to add up to 1. Left out: true where more than one is active;
    with one active expert that would leave the router nothing to learn from."""

    balance_loss: float = 0.01
    """How much of the balance loss is added in training: of each document, 1 when its tokens are spread evenly over
    the experts of a block, more when they are not."""

    balance_rate: float = 0.0
    """How far a bias of each expert, which only the choice sees, moves after each step towards even loads; 0.001 in
    DeepSeek-V3, which then takes a balance_loss of 0.0001. 0: no such bias."""

    router_z_loss: float = 0.001
    """How much of the squared logsumexp of the router's logits is added in training, which keeps them small."""

    dropout: float = 0.0
    """Share of the coordinates set to zero while training, of embeddings, of attention probabilities, and of what each
    attention and feed-forward adds to the residual stream. For several passes over little text; else 0."""

    logit_softcap: float | None = None
    """Logits are bent so that none exceeds this size: cap·tanh(logits/cap). Left out: they are not."""

    embedding_skip: bool = False
    """Whether each block begins with a learned mix of the residual stream and the embedding."""

    value_embeddings: bool = False
    """Whether every second block adds an embedding of the token itself, gated per head, to its values: knowledge about
    tokens at hardly any computation, for vocab_size × kv_heads × head_width parameters a block."""

    short_convolution: int | None = None
    """Positions that are mixed, channel by channel, before attention and feed-forward read them: 2 is a token and the
    one before it, at hardly any cost. Left out: none."""

    causal: bool = True
    """Whether a position reads only itself and what came before. false: every position reads every other, for masked
    language models."""

    window: int | None = None
    """Positions that a layer with a sliding window reads: itself and window − 1 before it."""

    sparse_block: int | None = None
    """Positions of a block in block-sparse layers, which read their own block and the summary of every block before:
    its last `sparse_summary` positions."""

    sparse_summary: int = 8
    """How many positions at the end of each block are read from every later one."""

    window_pattern: str | None = None
    """What the layers read, a letter each, repeated over all of them: S a sliding window, B block-sparse, L everything;
    SSSL is three windows and then a layer that reads all. Left out: S when window is set, B when sparse_block is set, L
    otherwise."""

    tied: bool = False
    """Whether the output head is the embedding matrix."""

    head: Literal["tokens", "score", "both"] = "tokens"
    """What stands on the residual stream. tokens: scores of the next token. score: one number a position, as a reward
    model or a critic gives; `seedbed reward` makes such a model. both: a policy with its critic, while `seedbed ppo`
    trains them."""

    initial_std: float | None = None
    """Standard deviation of fresh matrices; 0.02 in GPT-2. Left out: each matrix's input width^-0.5."""

    embedding_std: float = DERIVED
    """Standard deviation of fresh embeddings. Left out: initial_std, else 1.0, or width^-0.5 when tied."""

    zero_projections: bool = True
    """Whether what writes into the residual stream, and an own head, begin at zero. Otherwise they are drawn like other
    matrices, the former divided by √(2·layers) as in GPT-2."""

    pad_id: int | None = None
    """Id of padding. Left out: taken from the tokenizer."""

    bos_id: int | None = None
    """Id that begins a document. Left out: taken from the tokenizer."""

    eos_id: int | None = None
    """Id that ends a document. Left out: taken from the tokenizer."""

    def __post_init__(self) -> None:
        between(self, 1, LARGEST_SIZE, "width", "heads", "kv_heads", "head_width", "ff_width")
        between(self, 1, LARGEST_CONTEXT, "context")
        between(self, 1, MOST_LAYERS, "layers", "depth")
        if self.depth is not None and self.layers not in (None, self.depth):
            raise ConfigError(f"depth is {self.depth}, but layers is {self.layers}", "Depth is layers: give one.")
        between(self, 1, LARGEST_VOCABULARY, "vocab_size")
        between(self, 1, 10**12, "rope_base")
        between(self, 1, 10**6, "rope_factor")
        between(self, 1, LARGEST_CONTEXT, "rope_original_context")
        between(self, 0, 0.9, "dropout")
        between(self, 2, LONGEST_CONVOLUTION, "short_convolution")
        positive(self, "norm_epsilon", "embedding_std", "initial_std", "logit_softcap")
        at_least(self, 0, "pad_id", "bos_id", "eos_id")
        if self.heads is not None and self.kv_heads is not None and self.heads % self.kv_heads:
            raise ConfigError(f"heads must be a multiple of kv_heads, got {self.heads} and {self.kv_heads}")
        if self.norm_bias and self.norm == "rms":
            raise ConfigError("norm_bias needs norm layer: an RMS norm has no bias")
        if not (self.attention_output_bias or self.attention_bias):
            raise ConfigError("attention_output_bias is false, but without attention_bias there is none anyway")
        self._check_rope()
        self._check_pattern()
        self._check_experts()

    def _check_rope(self) -> None:
        if self.positions != "rope":
            if self.rope_scaling != "none":
                raise ConfigError(f"rope_scaling is {self.rope_scaling}, but positions is {self.positions}")
            return
        if self.head_width is not None and self.head_width % 2:
            raise ConfigError(f"head_width must be even: RoPE rotates pairs, got {self.head_width}")
        if self.rope_scaling == "none" and (self.rope_factor != 1 or self.rope_original_context is not None):
            raise ConfigError(
                "rope_factor and rope_original_context need rope_scaling",
                "Choose yarn, the best; or linear, ntk or llama3.",
            )
        if self.rope_scaling == "yarn" and self.rope_base <= 1:
            raise ConfigError(f"rope_base must be above 1 for rope_scaling yarn, got {self.rope_base}")
        if self.rope_scaling == "ntk" and self.head_width == 2:
            raise ConfigError("head_width must be above 2 for rope_scaling ntk, which keeps the fastest pair, got 2")

    def _check_pattern(self) -> None:
        between(self, 1, LARGEST_CONTEXT, "window", "sparse_block")
        between(self, 1, self.sparse_block or LARGEST_CONTEXT, "sparse_summary")
        pattern = self.window_pattern
        if pattern is None:
            if self.window is not None and self.sparse_block is not None:
                raise ConfigError(
                    "window and sparse_block are both set: window_pattern must say which layers have which"
                )
            return
        if not pattern or set(pattern) - set("SBL"):
            raise ConfigError(f"window_pattern must be made of the letters S, B and L, got {pattern!r}")
        for letter, name in (("S", "window"), ("B", "sparse_block")):
            size = getattr(self, name)
            if letter in pattern and size is None:
                raise ConfigError(f"window_pattern {pattern} has {letter}, but {name} is not set")
            if letter not in pattern and size is not None:
                raise ConfigError(f"{name} is {size}, but window_pattern {pattern} has no {letter}")

    def _check_experts(self) -> None:
        between(self, 0, MOST_EXPERTS, "experts", "experts_active", "experts_shared")
        between(self, 0, LARGEST_SIZE, "expert_width")
        between(self, 1, MOST_LAYERS, "experts_every")
        between(self, 0, MOST_LAYERS, "experts_dense_first")
        at_least(self, 0, "balance_loss", "balance_rate", "router_z_loss")
        if not self.experts:
            for name, none in NO_EXPERTS.items():
                if getattr(self, name) not in (None, none):
                    raise ConfigError(f"{name} is {getattr(self, name)}, but experts is 0", "Say how many: --experts 8")
            return
        if self.experts_active is not None and not 1 <= self.experts_active <= self.experts:
            raise ConfigError(
                f"experts_active must be between 1 and experts ({self.experts}), got {self.experts_active}"
            )
        if self.expert_width == 0:
            raise ConfigError("expert_width must be at least 1, got 0")
        if self.experts_active == 1 < self.experts and self.router_normalised:
            raise ConfigError("router_normalised with one active expert: its weight is always 1, no router learns so")
        if self.experts_shared * (self.expert_width or 1) > LARGEST_SIZE:
            raise ConfigError(f"experts_shared times expert_width must be at most {LARGEST_SIZE:,}")
        if self.feedforward_bias:
            raise ConfigError("feedforward_bias with experts: an expert has no bias")
        if self.layers is None:
            return  # `resolve` fills it in, and comes by here again
        if self.layers * self.experts > LARGEST_SIZE:
            raise ConfigError(f"layers times experts must be at most {LARGEST_SIZE:,}")
        if not any(map(self.has_experts, range(self.layers))):
            raise ConfigError(
                f"no block has experts: layers is {self.layers}, experts_every {self.experts_every}, "
                f"experts_dense_first {self.experts_dense_first}"
            )

    def has_experts(self, layer: int) -> bool:
        """Of block number `layer`, counted from 0."""
        return self.experts > 0 and layer >= self.experts_dense_first and (layer + 1) % self.experts_every == 0

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward has a gate."""
        return self.activation in GATED

    def has_value_embedding(self, layer: int) -> bool:
        """Of block number `layer`, counted from 0: every second block, the last one among them."""
        return self.value_embeddings and (self.layers - 1 - layer) % 2 == 0

    @property
    def head_rows(self) -> int:
        """Numbers that the head gives for a position."""
        return {"tokens": self.vocab_size, "score": 1, "both": self.vocab_size + 1}[self.head]

    @property
    def layer_kinds(self) -> str:
        """What each layer reads, a letter each: S a sliding window, B block-sparse, L everything."""
        pattern = self.window_pattern or ("S" if self.window else "B" if self.sparse_block else "L")
        return (pattern * self.layers)[: self.layers]

    def with_tokenizer(self, tokenizer: Tokenizer) -> ModelConfig:
        """With the vocabulary and special ids of the tokenizer, and resolved. ConfigError when another one is set."""
        if self.vocab_size not in (None, tokenizer.vocab_size):
            raise ConfigError(
                f"vocab_size is {self.vocab_size:,}, but the tokenizer has {tokenizer.vocab_size:,} tokens",
                "Leave model.vocab_size out: it is taken from the tokenizer.",
            )
        ids = {}
        for name in ("pad_id", "bos_id", "eos_id"):
            own, theirs = getattr(self, name), getattr(tokenizer, name)
            if own not in (None, theirs):
                raise ConfigError(
                    f"{name} is {own}, but the tokenizer's is {theirs}",
                    f"Leave model.{name} out: it is taken from the tokenizer, which marks texts with it.",
                )
            ids[name] = theirs
        return replace(self, vocab_size=tokenizer.vocab_size, **ids).resolve()

    def resolve(self) -> ModelConfig:
        """Every derived size filled in. ConfigError when the sizes do not fit together or the vocabulary is unknown."""
        if self.vocab_size is None:
            raise ConfigError("vocab_size is not set and there is no tokenizer to take it from")
        for name in ("pad_id", "bos_id", "eos_id"):
            if (value := getattr(self, name)) is not None and value >= self.vocab_size:
                raise ConfigError(f"{name} is {value:,}, but there are {self.vocab_size:,} ids, from 0 on")
        head_width = self.head_width or (128 if (self.depth or 0) >= LAYERS_OF_WIDE_HEADS else 64)
        width = self.width or (
            256 if self.depth is None else -(-WIDTH_OF_LAYER * self.depth // head_width) * head_width
        )
        heads = self.heads or max(1, width // (64 if self.depth is None else head_width))
        if self.head_width is None and width % heads:
            of_depth = f" (64 for each layer of depth {self.depth})" if self.depth and self.width is None else ""
            raise ConfigError(f"width must be a multiple of heads, got {width}{of_depth} and {heads}")
        ff_width = self.ff_width or (-(-width * 8 // 3 // 64) * 64 if self.is_gated else 4 * width)
        active = min(2, self.experts) if self.experts_active is None else self.experts_active
        return replace(
            self,
            depth=None,  # all that it says is said now
            layers=self.layers or self.depth or 4,
            width=width,
            heads=heads,
            kv_heads=self.kv_heads or heads,
            head_width=self.head_width or width // heads,
            ff_width=ff_width,
            experts_active=active,
            expert_width=self._expert_width(ff_width, active) if self.expert_width is None else self.expert_width,
            router_normalised=active > 1 if self.router_normalised is None else self.router_normalised,
            embedding_std=self.embedding_std or self.initial_std or (width**-0.5 if self.tied else 1.0),
            rope_original_context=self._original_context(),
        )

    def _expert_width(self, ff_width: int, active: int) -> int:
        if not self.experts:
            return 0
        share = -(-ff_width // (active + self.experts_shared))
        return min(LARGEST_SIZE, -(-share // 16) * 16)

    def _original_context(self) -> int | None:
        if self.rope_scaling == "none" or self.rope_original_context is not None:
            return self.rope_original_context
        return max(1, round(self.context / self.rope_factor))


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Shows what a model is and what it costs: parameters, operations, memory."""

    model: str | None = None
    """Model folder (ours or one of transformers), run or checkpoint; or a preset or YAML file whose model is to be
    looked at before it is trained."""

    depth: int | None = None
    """In place of model: what --model.depth of pretrain makes of a model and of its training."""

    vocab_size: int | None = None
    """Number of token ids, for a file that leaves it to the tokenizer. Left out: what a preset is meant for."""

    length: int | None = None
    """Tokens of a sequence that the costs are told for. Left out: the model's context."""

    batch: int = 16
    """Sequences of a training step."""

    def __post_init__(self) -> None:
        between(self, 1, LARGEST_VOCABULARY, "length", "batch", "vocab_size")
        between(self, 1, MOST_LAYERS, "depth")
        if self.model == "":
            raise ConfigError("model must be a folder, a preset or a YAML file, got an empty text")
        if (self.model is None) == (self.depth is None):
            raise ConfigError("give one of model and depth", "As in --model pretrain/llama-tiny, or --depth 12.")
