"""The language of a text, told by py3langid (Barbaresi; after Lui & Baldwin 2012, langid.py, ACL demo P12-3005)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from seedbed.data.cleaning.dropped import Dropped
from seedbed.errors import ConfigError
from seedbed.extras import missing


class Languages:
    """The languages to keep, and the model that tells them. Raises ConfigError for a code the model does not know, or
    where py3langid is not installed."""

    def __init__(self, codes: Sequence[str], threshold: float, sample: int | None):
        self.codes = frozenset(codes)
        self.threshold = threshold
        self.sample = sample
        self._model = _load()
        known = self._model.labels
        if unknown := sorted(self.codes.difference(known)):
            raise ConfigError(
                f"clean.languages: no model for {', '.join(unknown)}", f"Known: {', '.join(sorted(known))}."
            )

    def tell(self, text: str) -> tuple[str, float]:
        """The likeliest language of a text and its probability."""
        return self._model.classify(sample(text, self.sample) if self.sample else text)

    def check(self, text: str) -> str:
        """The language of a text that is kept. Raises Dropped for another, or for doubt."""
        language, probability = self.tell(text)
        if language not in self.codes:
            raise Dropped("language")
        if probability < self.threshold:
            raise Dropped("language uncertain")
        return language


def sample(text: str, characters: int) -> str:
    """The text, or three stretches of a longer one: a title page, notice or index at one place does not decide."""
    if len(text) <= characters:
        return text
    third = characters // 3
    middle = (len(text) - third) // 2
    return "\n".join((text[:third], text[middle : middle + third], text[-third:]))


@cache
def _load() -> Any:
    """The model, once a process: it takes a second and 100 MB."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # an extra: only those who sort languages need it
    except ImportError as error:
        raise missing("clean.languages", "py3langid", "data") from error
    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    model.nb_ptc = model.nb_ptc.astype("float32")  # as it is computed with: float16 would be widened for every text
    return model
