"""The order of cleaning."""

from __future__ import annotations

from collections import Counter

from seedbed.data.cleaning.addresses import strip_addresses
from seedbed.data.cleaning.characters import strip_control_characters
from seedbed.data.cleaning.contamination import Contamination
from seedbed.data.cleaning.dropped import Dropped
from seedbed.data.cleaning.fences import strip_code_blocks
from seedbed.data.cleaning.language import Languages
from seedbed.data.cleaning.lengths import check_length, split
from seedbed.data.cleaning.privacy import mask
from seedbed.data.cleaning.quality import check_gopher, keep_c4_lines
from seedbed.data.cleaning.repair import Repair
from seedbed.data.cleaning.repetition import check_repetition
from seedbed.data.config import CleaningConfig
from seedbed.data.shingles import word_hashes, words


class Cleaner:
    """Applies a config. Making one loads models and benchmarks, so a process makes one and keeps it; what becomes of a
    text then depends on nothing else.

    Raises ConfigError for a package that is missing or a language nobody knows, DataError for a benchmark without text.
    """

    def __init__(self, config: CleaningConfig):
        self.config = config
        self.repair = None if config.repair == "off" else Repair(config.repair)
        self.languages = None
        if config.languages:
            self.languages = Languages(config.languages, config.language_threshold, config.language_sample)
        self.contamination = None
        if config.benchmarks:
            self.contamination = Contamination(config.benchmarks, config.benchmark_words)

    def clean(self, text: str, counts: Counter[str]) -> list[str]:
        """The text cleaned, in parts where it was too long; nothing when it is dropped.

        `counts` gains what was done, by reason: `dropped: …` and `split: …` once a text, `mended: …` once a text that
        changed, `stripped: …` and `masked: …` once for each thing taken out.
        """
        try:
            text = self._clean(text, counts)
        except Dropped as reason:
            counts[f"dropped: {reason}"] += 1
            return []
        return split(text, self.config.max_characters, counts) if self.config.max_characters else [text]

    def _clean(self, text: str, counts: Counter[str]) -> str:
        config = self.config
        if self.repair:
            text = self.repair.mend(text, counts)
        if config.control_characters:
            text = strip_control_characters(text, counts)
        if config.urls == "strip":
            text = strip_addresses(text, counts)
        if config.code_blocks == "strip":
            text = strip_code_blocks(text, counts)
        language = self.languages.check(text) if self.languages else "en"
        if "gopher" in config.quality:
            check_gopher(text, english=language == "en")
        if "c4" in config.quality:
            text = keep_c4_lines(text, counts)
        if config.repetition or self.contamination:
            found = words(text)
            hashes = word_hashes(found)
            if config.repetition:
                check_repetition(text, found, hashes)
            if self.contamination:
                self.contamination.check(hashes)
        if config.privacy:
            text = mask(text, config.privacy, counts)
        if config.min_characters:
            check_length(text, config.min_characters)
        return text
