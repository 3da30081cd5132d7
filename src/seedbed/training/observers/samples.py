"""Texts that the model writes while it learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seedbed.errors import DataError
from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.observers.config import SamplesConfig
from seedbed.training.observers.observer import Observer, undisturbed

if TYPE_CHECKING:
    from seedbed.training.trainer import StepReport, Trainer


class Samples(Observer):
    """Continues the same prompts every so many steps, and at the end; a prompt that does not fit is an error at the
    beginning."""

    def __init__(self, config: SamplesConfig, tokenizer: Tokenizer):
        self.config, self.tokenizer = config, tokenizer

    def check(self, trainer: Trainer[Any]) -> None:
        with undisturbed(trainer):
            engine = Engine(trainer.model, self.tokenizer)
            for prompt in self.config.prompts:
                try:
                    engine.check(engine.encode(prompt), SamplingConfig())
                except DataError as error:
                    problem = f"samples.prompts, {prompt[:40]!r}: {error.problem}"
                    raise DataError(problem, "Give --samples.prompts that fit.") from None

    def after_step(self, trainer: Trainer[Any], report: StepReport) -> None:
        if not trainer.due(self.config.every):
            return
        sampling = SamplingConfig(
            max_tokens=self.config.max_tokens, temperature=self.config.temperature, seed=trainer.progress.step
        )
        with undisturbed(trainer):
            texts = Engine(trainer.model, self.tokenizer).generate(self.config.prompts, sampling)
        for prompt, text in zip(self.config.prompts, texts, strict=True):
            trainer.record("samples", {"prompt": prompt, "text": text})
