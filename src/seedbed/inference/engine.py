"""A model with its tokenizer, answering many prompts at once.

A step is one forward pass for a share of the tokens of all who are being answered, one choice for each whose tokens are
all read, and their text. Whoever is done leaves, and the next one comes in (Yu et al. 2022, OSDI '22: Orca).

Shape suffixes: B generations, N tokens of a step, Q sequences, W blocks, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from seedbed.errors import ConfigError, DataError
from seedbed.inference.blocks import Blocks
from seedbed.inference.config import EngineConfig, SamplingConfig
from seedbed.inference.generation import Completion, Generation
from seedbed.inference.sampling import choose
from seedbed.inference.scheduler import Scheduler, Share
from seedbed.inference.text import StopText
from seedbed.model.accounting import cache_bytes
from seedbed.model.cache import BLOCK, PagedCache, Places
from seedbed.model.folder import load_model
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.chat import encode_prompt
from seedbed.tokenizers.tokenizer import Tokenizer


CACHE_BYTES = 4_000_000_000
"""Of keys and values, where the config does not say how many tokens."""


@dataclass(frozen=True)
class Event:
    """A piece of text of one row; `completion` is set with the last."""

    row: int
    text: str
    completion: Completion | None = None


class Engine:
    """Generates with one model."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, config: EngineConfig | None = None):
        """ConfigError when the model reads both ways: it cannot go on with a text."""
        if not model.config.causal:
            raise ConfigError(
                "the model reads both ways (model.causal is false): it cannot go on with a text",
                "It predicts hidden tokens; take a causal model to generate, chat and evaluate.",
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.config = config or EngineConfig()
        weight = next(model.parameters())
        self.device = weight.device
        most = CACHE_BYTES // cache_bytes(model.config, 1)
        tokens = self.config.cache_tokens or min(self.config.rows * model.config.context, most)
        blocks = max(-(-tokens // BLOCK), -(-model.config.context // BLOCK))  # of one sequence at least
        self.cache = PagedCache(model.config, blocks, device=self.device, dtype=weight.dtype)
        self.scheduler = Scheduler(Blocks(blocks), rows=self.config.rows, step_tokens=self.config.step_tokens)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
        config: EngineConfig | None = None,
    ) -> Engine:
        """From what `load_model` opens, with weights of `dtype`, or of the one they are stored in."""
        return cls(*load_model(Path(path), device=device, dtype=dtype), config)

    # Whole answers ---------------------------------------------------------------------------------------------------

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

    def stream(self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig) -> Iterator[Event]:
        """Text as it comes, of all rows at once. Raises DataError for an empty prompt or one beyond the context. Who
        stops listening cancels what is not done."""
        for ids in prompts:
            self.check_prompt(ids)
        rows = {self.submit(ids, sampling): row for row, ids in enumerate(prompts)}
        unfinished = set(rows)
        try:
            while unfinished:
                for generation, text in self.step():
                    if generation.reason is not None:
                        unfinished.discard(generation)
                        yield Event(rows[generation], text, generation.completion)
                    elif text:
                        yield Event(rows[generation], text)
        finally:
            for generation in unfinished:
                self.cancel(generation)

    def fits(self, ids: Sequence[int]) -> bool:
        """Whether the context holds a prompt and a token more."""
        return len(ids) < self.model.config.context

    def check_prompt(self, ids: Sequence[int]) -> None:
        context = self.model.config.context
        if not ids:
            raise DataError("the prompt is empty and this tokenizer has no token that begins a text")
        if not self.fits(ids):
            raise DataError(f"the prompt has {len(ids):,} tokens, the model's context is {context:,}", "Shorten it.")

    # Step by step ----------------------------------------------------------------------------------------------------

    def submit(self, ids: Sequence[int], sampling: SamplingConfig, *, salt: bytes = b"") -> Generation:
        """A continuation that the next steps make. DataError for a prompt that cannot be continued. What has another
        `salt` shares nothing in the cache."""
        self.check_prompt(ids)
        generation = Generation(
            tokens=list(ids),
            prompt=len(ids),
            limit=min(len(ids) + sampling.max_tokens, self.model.config.context),
            sampling=sampling,
            text=StopText(self.tokenizer.stream(continues=True), sampling.stop),
            salt=salt,
        )
        if sampling.repetition_penalty != 1.0:
            generation.seen_V = torch.zeros(self.model.config.vocab_size, dtype=torch.bool, device=self.device)
            generation.seen_V[torch.tensor(generation.tokens, device=self.device)] = True
        self.scheduler.add(generation)
        return generation

    def cancel(self, generation: Generation) -> None:
        """It is wanted no longer: its place and its blocks are free."""
        if generation.reason is None:
            generation.reason = "cancelled"
            self.scheduler.remove(generation)

    @torch.inference_mode()
    def step(self) -> list[tuple[Generation, str]]:
        """One forward pass; the text that is now certain of each generation that has a token more, the reason of those
        that end with it."""
        shares = self.scheduler.schedule()
        if not shares:
            return []
        ends_B = torch.tensor([share.count for share in shares]).cumsum(0) - 1
        x_ND = self.model.step(*self.read(shares), self.cache)
        chosen = [place for place, share in enumerate(shares) if share.completes]
        for share in shares:
            self.scheduler.computed(share)
        if not chosen:
            return []
        generations = [shares[place].generation for place in chosen]
        logits_BV = self.model.logits(x_ND[ends_B[chosen].to(self.device)])
        return [self.take(*pair) for pair in zip(generations, self.choose(logits_BV, generations), strict=True)]

    def read(self, shares: Sequence[Share]) -> tuple[Tensor, Places]:
        """The tokens of a step (N), and where they stand."""
        tokens, sequences, positions = [], [], []
        for number, share in enumerate(shares):
            first = share.generation.computed
            tokens += share.generation.tokens[first : first + share.count]
            positions += range(first, first + share.count)
            sequences += [number] * share.count
        width = max(len(share.generation.blocks) for share in shares)
        tables = [[*share.generation.blocks, *[0] * (width - len(share.generation.blocks))] for share in shares]
        places = (torch.tensor(part, dtype=torch.int32, device=self.device) for part in (tables, sequences, positions))
        return torch.tensor(tokens, device=self.device), Places(*places)

    def choose(self, logits_BV: Tensor, generations: Sequence[Generation]) -> list[int]:
        """The next token of each. Those that choose alike, but for their seeds, choose together."""
        alike: dict[SamplingConfig, list[int]] = {}
        for place, generation in enumerate(generations):
            key = replace(generation.sampling, seed=0, max_tokens=1, stop=())
            alike.setdefault(key, []).append(place)
        tokens = [0] * len(generations)
        for sampling, places in alike.items():
            some = [generations[place] for place in places]
            seen = [generation.seen_V for generation in some if generation.seen_V is not None]
            found_B = choose(
                logits_BV[places] if len(some) < len(generations) else logits_BV,
                sampling,
                [generation.sampling.seed for generation in some],
                [len(generation.tokens) for generation in some],
                torch.stack(seen) if seen else None,
            )
            for place, token in zip(places, found_B.tolist(), strict=True):
                tokens[place] = token
        return tokens

    def take(self, generation: Generation, token: int) -> tuple[Generation, str]:
        """One more token: the text that is now certain. It ends when the model, a stop text or its limit says so."""
        text = generation.text
        piece, reason = "", "end"
        if token in self.tokenizer.end_ids:
            piece = text.flush()
        else:
            generation.tokens.append(token)
            if generation.seen_V is not None:
                generation.seen_V[token] = True
            piece = text.push(token)
            reason = "stop" if text.stopped else "length"
            if reason == "length" and len(generation.tokens) < generation.limit:
                return generation, piece
            if reason == "length":
                piece += text.flush()
        generation.reason = reason
        self.scheduler.remove(generation)
        return generation, piece
