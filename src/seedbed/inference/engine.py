"""A model with its tokenizer, answering prompts.

A step is one forward pass for all unfinished rows, one choice each, and their text. Rows of different lengths share a
batch without left padding: each writes into the cache at its own positions.

Shape suffixes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from seedbed.errors import ConfigError, DataError
from seedbed.inference.config import SamplingConfig
from seedbed.inference.sampling import choose
from seedbed.inference.text import StopText
from seedbed.model.cache import KVCache
from seedbed.model.folder import load_model
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.chat import encode_prompt
from seedbed.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class Completion:
    """What a model said."""

    text: str
    tokens: tuple[int, ...]
    reason: str
    """"end": the model ended; "stop": a stop text came; "length": max_tokens or the context was reached."""


@dataclass(frozen=True)
class Event:
    """A piece of text of one row; `completion` is set with the last."""

    row: int
    text: str
    completion: Completion | None = None


class Engine:
    """Generates with one model."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer):
        """ConfigError when the model reads both ways: it cannot go on with a text."""
        if not model.config.causal:
            raise ConfigError(
                "the model reads both ways (model.causal is false): it cannot go on with a text",
                "It predicts hidden tokens; take a causal model to generate, chat and evaluate.",
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.device = next(model.parameters()).device

    @classmethod
    def load(
        cls, path: str | Path, *, device: str | torch.device = "cpu", dtype: str | torch.dtype | None = None
    ) -> Engine:
        """From what `load_model` opens, with weights of `dtype`, or of the one they are stored in."""
        return cls(*load_model(Path(path), device=device, dtype=dtype))

    @overload
    def generate(self, prompts: str, sampling: SamplingConfig | None = None, **settings: Any) -> str: ...
    @overload
    def generate(self, prompts: list[str], sampling: SamplingConfig | None = None, **settings: Any) -> list[str]: ...
    def generate(
        self, prompts: str | list[str], sampling: SamplingConfig | None = None, **settings: Any
    ) -> str | list[str]:
        """Continues one text, or several at once. Settings are those of SamplingConfig, `generate("Once", seed=3)`, and
        go before what `sampling` says."""
        sampling = replace(sampling or SamplingConfig(), **settings)
        texts = [prompts] if isinstance(prompts, str) else prompts
        completions = self.complete([self.encode(text) for text in texts], sampling)
        continued = [completion.text for completion in completions]
        return continued[0] if isinstance(prompts, str) else continued

    def chat(
        self, messages: Sequence[Mapping[str, str]], sampling: SamplingConfig | None = None, **settings: Any
    ) -> str:
        """The assistant's reply to a conversation."""
        sampling = replace(sampling or SamplingConfig(), **settings)
        return self.complete([encode_prompt(self.tokenizer, list(messages))], sampling)[0].text

    def encode(self, text: str) -> list[int]:
        """A prompt as the model was trained to see it: <s> first, once, when the tokenizer has it."""
        return self.tokenizer.encode(text, bos=self.tokenizer.bos_id is not None)

    def complete(self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig) -> list[Completion]:
        """The completion of each prompt, given as token ids, in order."""
        completions: dict[int, Completion] = {}
        for event in self.stream(prompts, sampling):
            if event.completion is not None:
                completions[event.row] = event.completion
        return [completions[row] for row in range(len(prompts))]

    @torch.inference_mode()
    def stream(self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig) -> Iterator[Event]:
        """Text as it comes, of all rows at once. Raises DataError for an empty prompt or one beyond the context."""
        for ids in prompts:
            self.check_prompt(ids)
        batch = Batch(self.model, self.tokenizer, prompts, sampling)
        while batch.rows:
            tokens_B = batch.choose(batch.forward())
            yield from batch.publish(tokens_B)

    def fits(self, ids: Sequence[int]) -> bool:
        """Whether the context holds a prompt and a token more."""
        return len(ids) < self.model.config.context

    def check_prompt(self, ids: Sequence[int]) -> None:
        context = self.model.config.context
        if not ids:
            raise DataError("the prompt is empty and this tokenizer has no token that begins a text")
        if not self.fits(ids):
            raise DataError(f"the prompt has {len(ids):,} tokens, the model's context is {context:,}", "Shorten it.")


class Batch:
    """Rows that are generated together."""

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], sampling: SamplingConfig
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.sampling = sampling
        self.device = next(model.parameters()).device
        self.rows = list(range(len(prompts)))
        self.lengths = [len(prompt) for prompt in prompts]
        self.limits = [min(n + sampling.max_tokens, model.config.context) for n in self.lengths]
        self.made: list[list[int]] = [[] for _ in prompts]
        self.texts = [StopText(tokenizer.stream(continues=True), sampling.stop) for _ in prompts]
        if prompts:
            self.cache = KVCache(model.config, len(prompts), max(self.limits), device=self.device, dtype=self.dtype)
            self.pending_BT = self.pad(prompts)
            self.seen_BV = self.occurred(prompts)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def pad(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Prompts side by side, padded on the right: what stands there is overwritten before anything can read it."""
        longest = max(self.lengths)
        rows = [[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts]
        return torch.tensor(rows, device=self.device)

    def occurred(self, prompts: Sequence[Sequence[int]]) -> Tensor | None:
        if self.sampling.repetition_penalty == 1.0:
            return None
        seen_BV = torch.zeros(len(prompts), self.model.config.vocab_size, dtype=torch.bool, device=self.device)
        for row, prompt in enumerate(prompts):
            seen_BV[row, torch.tensor(prompt)] = True
        return seen_BV

    def forward(self) -> Tensor:
        """Logits (B, V) after the last token of each row."""
        width = self.pending_BT.shape[1]
        lengths_B = torch.tensor(self.lengths, device=self.device)
        is_prompt = not any(self.made)
        starts_B = torch.zeros_like(lengths_B) if is_prompt else lengths_B - 1
        positions_BT = starts_B[:, None] + torch.arange(width, device=self.device)
        x_BTD = self.model.extend(self.pending_BT, positions_BT, self.cache, max(self.lengths))
        return self.model.logits(x_BTD[torch.arange(len(self.rows)), lengths_B - 1 - starts_B])

    def choose(self, logits_BV: Tensor) -> Tensor:
        """The next token (B) of each row."""
        return choose(logits_BV, self.sampling, self.lengths, self.seen_BV)

    def publish(self, tokens_B: Tensor) -> Iterator[Event]:
        """Takes the tokens in, tells their text, and lets finished rows go."""
        staying = []
        for place, token in enumerate(tokens_B.tolist()):
            text, reason = self.take(place, token)
            if reason is None:
                staying.append(place)
                if text:
                    yield Event(self.rows[place], text)
            else:
                completion = Completion(self.texts[place].whole, tuple(self.made[place]), reason)
                yield Event(self.rows[place], text, completion)
        if self.seen_BV is not None:
            self.seen_BV[torch.arange(len(self.rows)), tokens_B] = True
        self.pending_BT = tokens_B[:, None]
        if len(staying) < len(self.rows):
            self.keep(staying)

    def take(self, place: int, token: int) -> tuple[str, str | None]:
        """One more token of a row: the text that is now certain, and why the row ends, if it does."""
        text = self.texts[place]
        if token in self.tokenizer.end_ids:
            return text.flush(), "end"
        self.made[place].append(token)
        self.lengths[place] += 1
        piece = text.push(token)
        if text.stopped:
            return piece, "stop"
        if self.lengths[place] >= self.limits[place]:
            return piece + text.flush(), "length"
        return piece, None

    def keep(self, places: list[int]) -> None:
        index = torch.tensor(places, dtype=torch.long, device=self.device)
        self.rows = [self.rows[place] for place in places]
        self.lengths = [self.lengths[place] for place in places]
        self.limits = [self.limits[place] for place in places]
        self.made = [self.made[place] for place in places]
        self.texts = [self.texts[place] for place in places]
        self.pending_BT = self.pending_BT[index]
        self.cache.keep_rows(index)
        if self.seen_BV is not None:
            self.seen_BV = self.seen_BV[index]
