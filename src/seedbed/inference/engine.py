"""A model with its tokenizer, answering many prompts at once.

A step is one forward pass for a share of the tokens of all who are being answered, one choice for each whose tokens are
all read, and their text. Whoever is done leaves, and the next one comes in (Yu et al. 2022, OSDI '22: Orca).

Shape suffixes: B generations, N tokens of a step, T those of a text, D model width, V vocabulary.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, cast, get_args, overload

import torch
from torch import Tensor, nn

from seedbed.configuration import changed
from seedbed.errors import ConfigError, DataError
from seedbed.inference.adjustments import Adjustments
from seedbed.inference.beam import beam_search
from seedbed.inference.blocks import Blocks
from seedbed.inference.choosing import Choosing
from seedbed.inference.config import EngineConfig, SamplingConfig, SearchConfig
from seedbed.inference.constraints import Grammars
from seedbed.inference.contrastive import contrastive_search
from seedbed.inference.drafts import Check, Drafter, ModelDrafts, TextDrafts
from seedbed.inference.generation import Completion, Generation
from seedbed.inference.graphs import DecodeGraphs
from seedbed.inference.loading import load_packed
from seedbed.inference.scheduler import Scheduler, Share
from seedbed.inference.text import StopText
from seedbed.model.accounting import cache_bytes
from seedbed.model.adapters.adapters import Adapters
from seedbed.model.adapters.folder import read_adapter, tell_other_base
from seedbed.model.cache import BLOCK, PagedCache, Places, widest_window
from seedbed.model.experts import Experts
from seedbed.model.folder import find_model
from seedbed.model.linears.int8 import Int8Linear
from seedbed.model.linears.layers import StoredLinear
from seedbed.model.packed.linears import PackedInt8Linear
from seedbed.model.score_head import refuse_score_head
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.chat import encode_prompt
from seedbed.tokenizers.tokenizer import Tokenizer

P = ParamSpec("P")
T = TypeVar("T")
TextDraft = Literal["lookup", "ngram"]
"""What guesses without a model."""
CACHE_BYTES = 4_000_000_000
"""Of keys and values, where the config does not say how many tokens."""


@dataclass(frozen=True)
class Event:
    """A piece of text of one row; `completion` is set with the last."""

    row: int
    text: str
    completion: Completion | None = None


def _alone(method: Callable[Concatenate[Engine, P], T]) -> Callable[Concatenate[Engine, P], T]:
    """While one thread is in it, others wait."""

    @functools.wraps(method)
    def locked(self: Engine, *arguments: P.args, **keywords: P.kwargs) -> T:
        with self._lock:
            return method(self, *arguments, **keywords)

    return locked


class Engine:
    """Generates with one model. Several threads may ask it; they share its steps, and one at a time makes them."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        config: EngineConfig | None = None,
        *,
        adapters: Adapters | None = None,
        draft: Transformer | TextDraft | None = None,
    ):
        """`adapters`: what requests may wear. `draft`: what guesses tokens ahead, to be checked together; a smaller
        model with the same tokens; "lookup", what followed earlier in the same text; "ngram", what followed in all
        texts. ConfigError when the model reads both ways or is a reward model: it cannot go on with a text."""
        if not model.config.causal:
            raise ConfigError(
                "the model reads both ways (model.causal is false): it cannot go on with a text",
                "It predicts hidden tokens; take a causal model to generate, chat and evaluate.",
            )
        refuse_score_head(model.config)
        self._lock = threading.RLock()
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.config = config or EngineConfig()
        self.adapters = adapters or Adapters(model, {})
        self.grammars = Grammars(tokenizer, self.vocabulary)
        self.device = model.device
        is_int8 = any(isinstance(module, PackedInt8Linear | Int8Linear) for module in model.modules())
        kind = "fp16" if self.config.cache == "auto" and is_int8 else self.config.cache
        stored = {"fp16": torch.float16, "int8": torch.int8}.get(kind)
        most = CACHE_BYTES // cache_bytes(model.config, 1, (stored or model.dtype).itemsize)
        step_tokens, window = self.config.step_tokens, widest_window(model.config)
        longest = model.config.context if window is None else min(model.config.context, window + step_tokens + BLOCK)
        whole = -(-longest // BLOCK) * BLOCK
        tokens = self.config.cache_tokens or min(self.config.rows * whole, most)
        blocks = -(-max(tokens, whole) // BLOCK)  # of one sequence at least
        # One block more than the scheduler knows of: nobody's.
        self.cache = PagedCache(model.config, blocks + 1, device=self.device, dtype=model.dtype, stored=stored)
        records = self.device.type == "cuda" and not model.virtual_ids  # who stands where changes from pass to pass
        self.graphs = DecodeGraphs(model, self.cache, spare=blocks) if records else None
        guesses = 0 if draft is None else self.config.guesses
        self.scheduler = Scheduler(
            Blocks(blocks), rows=self.config.rows, step_tokens=step_tokens, window=window, guesses=guesses
        )
        self.choosing = Choosing(tokenizer, self.vocabulary, self.grammars, self.scheduler)
        self.drafter: Drafter | None = None
        if isinstance(draft, str):
            if draft not in get_args(TextDraft):
                raise ConfigError(f"there is no draft {draft!r}", "Give lookup, ngram or a model.")
            self.drafter = TextDrafts(everyones=draft == "ngram")
        elif draft is not None:
            if model.virtual_ids:
                raise ConfigError("the texts begin with what was learned for this model, which no draft knows")
            cache = PagedCache(draft.config, blocks, device=self.device, dtype=draft.dtype, stored=stored)
            self.drafter = ModelDrafts(draft, cache, self.vocabulary)
        if self.config.exact and (reason := self.inexact) is not None:
            raise ConfigError(f"exact is set, but {reason}", 'Leave exact out, or see docs/engine.md, "The same bits".')

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
        weights: str = "stored",
        adapters: Mapping[str, str | Path] | None = None,
        merge: str | Path | None = None,
        config: EngineConfig | None = None,
        draft: str | Path | None = None,
    ) -> Engine:
        """From what `load_model` opens, with weights of `dtype`, or of the one they are stored in, packed for speed.
        `weights` int8: its layers in 8-bit whole numbers, which needs a CPU. `adapters`: folders of LoRA, by the names
        that requests say. `merge`: an adapter's folder that becomes part of the model. `draft`: "lookup", "ngram", or
        where a smaller model is whose tokenizer is the same."""
        model, tokenizer = load_packed(Path(path), device, dtype, weights, merge=merge)
        found = {name: find_model(Path(folder)) for name, folder in (adapters or {}).items()}
        worn = Adapters(model, {name: read_adapter(folder, model.config) for name, folder in found.items()})
        for folder in found.values():
            tell_other_base(folder, find_model(Path(path)))
        if draft is None or draft in get_args(TextDraft):
            return cls(model, tokenizer, config, adapters=worn, draft=cast(TextDraft | None, draft))
        smaller, its_tokenizer = load_packed(Path(draft), device, dtype, weights, is_draft=True)
        if its_tokenizer.hash != tokenizer.hash:
            raise ConfigError(f"{draft} has another tokenizer than {path}", "A draft must mean the same by each token.")
        return cls(model, tokenizer, config, adapters=worn, draft=smaller)

    @property
    def inexact(self) -> str | None:
        """Why the bits of a score may depend on who else is being served; None: they do not."""
        if self.model.adapter is not None:
            return (
                f"the model wears an adapter of the method {self.model.adapter.method}, for which there are no kernels"
            )
        if not self.cache.by_kernel:
            return "attention is computed by PyTorch: there is no kernel for this device, precision, width or compiler"
        if any(isinstance(module, nn.Linear | StoredLinear | Int8Linear | Experts) for module in self.model.modules()):
            return "the model's layers are not packed: it was not opened by Engine.load"
        return None

    # Whole answers ---------------------------------------------------------------------------------------------------

    @overload
    def generate(
        self, prompts: str, sampling: SamplingConfig | None = None, *, adapter: str | None = None, **settings: Any
    ) -> str: ...
    @overload
    def generate(
        self, prompts: list[str], sampling: SamplingConfig | None = None, *, adapter: str | None = None, **settings: Any
    ) -> list[str]: ...
    def generate(
        self,
        prompts: str | list[str],
        sampling: SamplingConfig | None = None,
        *,
        adapter: str | None = None,
        **settings: Any,
    ) -> str | list[str]:
        """Continues one text, or several at once. Settings are those of SamplingConfig, `generate("Once", seed=3)`, and
        go before what `sampling` says."""
        sampling = changed(sampling or SamplingConfig(), settings)
        texts = [prompts] if isinstance(prompts, str) else prompts
        completions = self.complete([self.encode(text) for text in texts], sampling, adapter=adapter)
        continued = [completion.text for completion in completions]
        return continued[0] if isinstance(prompts, str) else continued

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        sampling: SamplingConfig | None = None,
        *,
        adapter: str | None = None,
        **settings: Any,
    ) -> str:
        """The assistant's reply to a conversation."""
        sampling = changed(sampling or SamplingConfig(), settings)
        return self.complete([encode_prompt(self.tokenizer, list(messages))], sampling, adapter=adapter)[0].text

    def encode(self, text: str) -> list[int]:
        """A prompt as the model was trained to see it: <s> first, once, when the tokenizer has it."""
        return self.tokenizer.encode(text, bos=self.tokenizer.bos_id is not None)

    def complete(
        self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig, *, n: int = 1, adapter: str | None = None
    ) -> list[Completion]:
        """The completions of each prompt, given as token ids, in order: `n` of them for each, side by side."""
        completions: dict[int, Completion] = {}
        for event in self.stream(prompts, sampling, n=n, adapter=adapter):
            if event.completion is not None:
                completions[event.row] = event.completion
        return [completions[row] for row in range(len(prompts) * n)]

    def stream(
        self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig, *, n: int = 1, adapter: str | None = None
    ) -> Iterator[Event]:
        """Text as it comes, of all rows at once: `n` of them for each prompt, side by side. Raises DataError for what
        `check` refuses. Who stops listening cancels what is not done."""
        for ids in prompts:
            self.check(ids, sampling, adapter)
        pairs = [(ids, sample) for ids in prompts for sample in range(n)]
        unfinished = {
            self.submit(ids, sampling, sample=sample, adapter=adapter): row for row, (ids, sample) in enumerate(pairs)
        }
        told = dict.fromkeys(unfinished, 0)
        try:
            while unfinished:
                self.step()
                # What a step tells may be another stream's, and what is ours another one may have stepped.
                for generation, row in list(unfinished.items()):
                    if generation.error is not None:
                        raise generation.error
                    text = generation.text.whole[told[generation] :]
                    told[generation] += len(text)
                    if generation.reason is not None:
                        del unfinished[generation]
                        yield Event(row, text, generation.completion)
                    elif text:
                        yield Event(row, text)
        finally:
            for generation in unfinished:
                self.cancel(generation)

    @_alone
    def search(
        self,
        prompt: str | Sequence[int],
        config: SearchConfig | None = None,
        *,
        adapter: str | None = None,
        **settings: Any,
    ) -> list[Completion]:
        """The `best` likeliest continuations of a text, or of token ids, that beam search finds, the best first; or the
        one of contrastive search. Settings are those of SearchConfig, `search("Once", beams=4, best=2)`.

        DataError for what `check` refuses, and when the cache is too small for so many beams; BusyError when those who
        are being answered leave too little of it.
        """
        config = changed(config or SearchConfig(), settings)
        ids = self.encode(prompt) if isinstance(prompt, str) else prompt
        if config.beams is not None:
            return beam_search(self, ids, config, adapter)
        if config.penalty_alpha is not None:
            return [contrastive_search(self, ids, config, adapter)]
        raise ConfigError("a search needs beams or penalty_alpha", 'For example engine.search("Once", beams=4).')

    def fits(self, ids: Sequence[int]) -> bool:
        """Whether the context holds a prompt and a token more."""
        return len(self.model.virtual_ids) + len(ids) < self.model.config.context

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], *, pooling: Literal["mean", "last", "none"] = "mean") -> list[Tensor]:
        """What the model makes of each text at the end of its layers, fp32: the mean over its tokens (D), that of the
        last (D), or that of each (T, D). Raises DataError for a text that is empty or beyond the context."""
        found = []
        for number, text in enumerate(texts, start=1):
            ids = self.encode(text)
            if not 0 < len(ids) <= (context := self.model.config.context):
                raise DataError(f"text {number} has {len(ids):,} tokens, the model reads 1 to {context:,}")
            x_TD = self.model.hidden(torch.tensor([ids], device=self.device))[0].float()
            found.append(x_TD if pooling == "none" else x_TD[-1] if pooling == "last" else x_TD.mean(0))
        return found

    @property
    def vocabulary(self) -> int:
        """Ids that are tokens: a model may have more, which mean nothing."""
        return min(self.model.config.vocab_size, self.tokenizer.vocab_size)

    def check(self, ids: Sequence[int], sampling: SamplingConfig, adapter: str | None = None) -> None:
        """DataError for a prompt that cannot be continued, or not in that way."""
        self.adapters.check(adapter)
        context, vocabulary = self.model.config.context, self.vocabulary
        if not ids:
            raise DataError("the prompt is empty and this tokenizer has no token that begins a text")
        if not self.fits(ids):
            context -= len(self.model.virtual_ids)
            raise DataError(f"the prompt has {len(ids):,} tokens, the model's context is {context:,}", "Shorten it.")
        for name, tokens in (("the prompt", ids), ("logit_bias", map(int, sampling.logit_bias))):
            if (wrong := next((token for token in tokens if not 0 <= token < vocabulary), None)) is not None:
                raise DataError(f"{name} has token {wrong}, the model's vocabulary {vocabulary:,}")
        if not all(isinstance(token, Integral) for token in ids):
            raise DataError("the prompt has tokens that are no whole numbers", "Give ids, such as engine.encode makes.")
        self.grammars.check(sampling)

    # Step by step ----------------------------------------------------------------------------------------------------

    @_alone
    def submit(
        self,
        ids: Sequence[int],
        sampling: SamplingConfig,
        *,
        sample: int = 0,
        salt: bytes = b"",
        adapter: str | None = None,
    ) -> Generation:
        """A continuation that the next steps make; of several from one seed, each needs another `sample`. DataError for
        what `check` refuses. What has another `salt`, or another `adapter`, shares nothing in the cache."""
        if not 0 <= sample < 2**63:
            raise DataError(f"sample must be between 0 and 2^63, got {sample}")
        if isinstance(sampling, SearchConfig) and sampling.is_search:
            raise ConfigError("beams and penalty_alpha are for a search, and this draws", "Take engine.search.")
        generation = self.begin(ids, sampling, sample=sample, salt=salt, adapter=adapter)
        self.scheduler.add(generation)
        return generation

    def begin(
        self,
        ids: Sequence[int],
        sampling: SamplingConfig,
        *,
        sample: int = 0,
        salt: bytes = b"",
        adapter: str | None = None,
    ) -> Generation:
        """One that nobody continues yet."""
        self.check(ids, sampling, adapter)
        tokens = [*self.model.virtual_ids, *ids]
        return Generation(
            tokens=tokens,
            prompt=len(tokens),
            limit=min(len(tokens) + sampling.max_tokens, self.model.config.context),
            sampling=sampling,
            text=StopText(self.tokenizer.stream(continues=True), sampling.stop),
            sample=sample,
            deadline=None if sampling.timeout is None else time.monotonic() + sampling.timeout,
            salt=repr((adapter, salt)).encode(),
            adapter=adapter,
            adjustments=Adjustments.of(sampling, ids, self.vocabulary, self.device),
            constraint=self.grammars.constraint(sampling),
        )

    @_alone
    def cancel(self, generation: Generation) -> None:
        """It is wanted no longer: its place and its blocks are free."""
        if generation.reason is None:
            generation.reason = "cancelled"
            self.scheduler.remove(generation)

    @_alone
    @torch.inference_mode()
    def step(self) -> list[tuple[Generation, str]]:
        """One forward pass; the text that is now certain of each generation that has tokens more, the reason of those
        that end with it."""
        told = dict(self.choosing.end(generation, "timeout") for generation in self.scheduler.late(time.monotonic()))
        shares = self.scheduler.schedule()
        if not shares:
            return list(told.items())
        guesses = [[] for _ in shares] if self.drafter is None else self.drafter.guess(shares)
        x_ND = self.run(shares, guesses)
        checks: list[Check] = []
        wanted: list[int] = []  # rows whose scores decide something
        end = 0
        for share, guessed in zip(shares, guesses, strict=True):
            end += share.count + len(guessed)
            if share.completes:
                checks.append(Check(share.generation, len(wanted), len(share.generation.tokens), guessed))
                wanted += range(end - len(guessed) - 1, end)
            self.scheduler.computed(share.generation, share.count)
        if checks:
            logits_BV = self.model.logits(x_ND[torch.tensor(wanted, device=self.device)])[:, : self.vocabulary]
            self._decide(logits_BV, checks, told)
        return list(told.items())

    def read(self, shares: Sequence[Share], guesses: Sequence[Sequence[int]]) -> tuple[Tensor, Places]:
        """The tokens of a step (N), what is guessed of each generation after what is known, and where they stand."""
        tokens: list[int] = []
        spans = []
        for share, guessed in zip(shares, guesses, strict=True):
            first = share.generation.computed
            tokens += [*share.generation.tokens[first : first + share.count], *guessed]
            spans.append((first, share.count + len(guessed)))
        places = Places.of([share.generation.blocks for share in shares], spans, self.device)
        return torch.tensor(tokens, device=self.device), places

    def run(self, shares: Sequence[Share], guesses: Sequence[Sequence[int]]) -> Tensor:
        """What the model makes of the tokens of a step, guesses among them (N, D)."""
        tokens_N, places = self.read(shares, guesses)
        worn = [
            (share.generation.adapter, share.count + len(guessed))
            for share, guessed in zip(shares, guesses, strict=True)
        ]
        if self.graphs is not None and places.is_decode and not any(adapter for adapter, _ in worn):
            return self.graphs.step(tokens_N, places)
        with self.adapters.worn(worn):
            return self.model.step(tokens_N, places, self.cache)

    def _decide(self, logits_BV: Tensor, checks: Sequence[Check], told: dict[Generation, str]) -> None:
        """The next token of each, and of those for which it is what was guessed, the one after it, and so on: a guess
        spares a pass and decides nothing."""
        going = list(checks)
        while going:
            rows = [check.row for check in going]
            some_BV = logits_BV if len(rows) == len(logits_BV) else logits_BV[rows]
            for generation, piece in self.choosing.choose(some_BV, [check.generation for check in going]):
                told[generation] = told.get(generation, "") + piece
            going = [check for check in going if check.row is not None]
        for check in checks:
            if check.guesses:
                check.generation.judge(len(check.guesses), check.right, self.config.guesses)
                if check.generation.reason is None:
                    self.scheduler.computed(check.generation, check.right)
