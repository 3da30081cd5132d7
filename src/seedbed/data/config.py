"""What `prepare`, `tokenizer`, `tokenize` and `tokens` are told. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seedbed.configuration import at_least, between, positive
from seedbed.errors import ConfigError
from seedbed.tokenizers.splits import Digits, Split, choose


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """Which rows of a data set on the Hugging Face hub, for a source named `hub:OWNER/NAME`."""

    subset: str | None = None
    """Subset (the hub calls it configuration too), such as 20231101.en of Wikipedia."""

    split: str = "train"
    """Split to read."""

    data_dir: str | None = None
    """Folder inside the data set, such as data/python of The Stack."""

    data_files: str | None = None
    """File or glob inside the data set."""

    revision: str | None = None
    """Branch, tag or commit; name one for a corpus that can be made again."""

    fraction: float = 1.0
    """Share of the rows, chosen by a hash of their number."""

    where: dict[str, str] = field(default_factory=dict)
    """Keep the rows whose field has this value, as {lang: en}; a dot goes into a field, as meta.pile_set_name."""

    def __post_init__(self) -> None:
        positive(self, "fraction")
        between(self, 0, 1, "fraction")


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """How the files of a source become documents."""

    documents: Literal["file", "line", "paragraph"] = "file"
    """What a document of a text file (.txt, .md) is: the whole file (in parts of `unit_bytes`, if it is longer), each
    line, or each paragraph between blank lines."""

    text_field: str | None = None
    """Field or column that holds the text. Left out: text, content, prompt with response, or the turns of a chat."""

    hub: HubConfig = field(default_factory=HubConfig)
    """Which rows, when the source is a data set of the hub."""

    longest_row: int = 16 << 20
    """Bytes; a row (a line of .jsonl, a record of .csv) that is longer is a bad row. It bounds memory."""

    max_bad_fraction: float = 0.01
    """Rows that cannot be read are counted by reason and written to rejects.jsonl; a larger share of all rows than
    this is an error. 0 accepts none."""

    def __post_init__(self) -> None:
        at_least(self, 1 << 10, "longest_row")
        between(self, 0, 1, "max_bad_fraction")


@dataclass(frozen=True, kw_only=True)
class CleaningConfig:
    """Which texts are mended, which are dropped, and why. Steps run in this order; everything is off by default."""

    repair: Literal["off", "suspect", "all"] = "off"
    """Mend mojibake and the like with ftfy: in all lines, or in those that hold anything it could change, which gives
    the same text faster. Line ends become those of Unix, curly quotes stay."""

    control_characters: bool = False
    """Remove control characters (all but line ends and tabs), zero-width marks, marks of direction and byte order."""

    urls: Literal["keep", "strip"] = "keep"
    """What becomes of web addresses."""

    code_blocks: Literal["keep", "strip"] = "keep"
    """What becomes of fenced blocks of code."""

    languages: list[str] = field(default_factory=list)
    """ISO 639-1 codes to keep, such as [en, de]; empty keeps any."""

    language_threshold: float = 0.70
    """Least probability of the language found, for a text to count as in it."""

    language_sample: int | None = 1_000
    """Characters that tell the language, from three places of a longer text. null: all, ten times slower."""

    quality: list[Literal["gopher", "c4"]] = field(default_factory=list)
    """Heuristics of Rae et al. 2021 (Gopher, §A.1.1), which drop texts, and of Raffel et al. 2020 (C4, §2.2), which
    also take out lines that are no sentences, such as headings."""

    repetition: bool = False
    """Drop texts that repeat lines, paragraphs or n-grams beyond the limits of Gopher (Rae et al. 2021, table A1)."""

    benchmarks: list[Path] = field(default_factory=list)
    """Benchmark files (.jsonl, .json, .csv, .parquet, .txt); a text that shares a run of words with one is dropped.
    Any string in a row counts."""

    benchmark_words: int = 13
    """Length of that run (Brown et al. 2020, GPT-3, appendix C). A shorter string of 8 words or more is a run too."""

    privacy: list[Literal["email", "phone", "ip", "card", "key"]] = field(default_factory=list)
    """What is masked by a placeholder such as <email>: addresses, phones, cards that pass Luhn's check, secret keys."""

    min_characters: int | None = None
    """Drop shorter texts, at the end of cleaning and before long ones are split."""

    max_characters: int | None = None
    """Split longer texts at paragraphs into documents of at most so many characters; nothing is dropped."""

    def __post_init__(self) -> None:
        between(self, 0, 1, "language_threshold")
        at_least(self, 100, "language_sample")
        at_least(self, 2, "benchmark_words")
        at_least(self, 1, "min_characters")
        at_least(self, 100, "max_characters")
        if self.min_characters and self.max_characters and self.min_characters * 2 > self.max_characters:
            raise ConfigError(f"min_characters must be at most half of max_characters, got {self.min_characters}")


@dataclass(frozen=True, kw_only=True)
class DeduplicationConfig:
    """Which repeats go. Of a group of duplicates the longest text stays, of equals the one with the smallest hash."""

    exact: bool = True
    """Drop texts that are equal once Unicode forms, case, punctuation and white space are evened out."""

    near: float | None = None
    """Drop texts whose sets of shingles have at least this Jaccard similarity; 0.8 is usual. Left out: none."""

    permutations: int = 128
    """Length of the MinHash signature (Broder 1997) that finds the pairs to compare. It is cut into bands so that 98%
    of the pairs at the threshold are found; a longer one finds them with fewer comparisons in vain."""

    shingle: int = 5
    """Words in a shingle, a run of words; a shorter text is one shingle."""

    lines: bool = False
    """Remove lines of three words or more that stand in another document too; that of the smallest hash keeps them."""

    paragraphs: bool = False
    """The same for paragraphs."""

    def __post_init__(self) -> None:
        between(self, 0.3, 1, "near")
        between(self, 16, 1024, "permutations")
        between(self, 1, 50, "shingle")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """From raw text to a corpus."""

    source: str = "stdlib"
    """A file, folder or glob of text, `-` for standard input, `hub:OWNER/NAME` for a data set of the Hugging Face hub,
    `stdlib` for the text of Python's library, `skills` for generated questions and answers. Kinds of files: .txt, .md,
    .jsonl, .json, .csv, .parquet, .html, also with .gz, .bz2 or .zst behind."""

    out: Path
    """The corpus folder to write; it must not exist yet. What a stopped run finished is kept beside it."""

    licence: str | None = None
    """Licence of the source, for the card."""

    reading: ReadingConfig = field(default_factory=ReadingConfig)
    """How files become documents."""

    clean: CleaningConfig = field(default_factory=CleaningConfig)
    """Which texts are mended and which are dropped."""

    deduplicate: DeduplicationConfig = field(default_factory=DeduplicationConfig)
    """Which repeats are dropped."""

    validation_fraction: float = 0.02
    """Share of the text, in bytes, that is kept apart to measure what was learned. At most a half."""

    max_bytes: int | None = None
    """Take a sample of about this many bytes: documents in the order of their hash. Everything when left out."""

    seed: int = 0
    """Chooses which documents are validation and which come into a sample."""

    executor: Literal["local", "ray"] = "local"
    """Where units of work run: processes of this machine, or a Ray cluster. The result is the same."""

    workers: int | None = None
    """Units at once; as many as cores when left out. The result is the same for any number."""

    unit_bytes: int = 4 << 20
    """Raw bytes of a unit of work: what is done again after a stop, and what a worker holds in memory. A text file that
    is longer becomes several documents."""

    def __post_init__(self) -> None:
        positive(self, "validation_fraction")
        between(self, 0, 0.5, "validation_fraction")
        at_least(self, 2, "max_bytes")
        at_least(self, 0, "seed")
        at_least(self, 1, "workers")
        between(self, 1 << 10, 1 << 30, "unit_bytes")
        if not self.source:
            raise ConfigError("source must be stdlib, a file, a folder or a glob, got an empty text")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Which tokenizer to make, and of what text; or which one to take over."""

    corpus: Path | None = None
    """Corpus folder, made by `seedbed prepare`: what is learned from, and measured on. Only an import needs none."""

    out: Path
    """Tokenizer folder to write; it must not exist, or be empty."""

    kind: Literal["byte_pair", "sentence_piece", "bytes", "characters"] = "byte_pair"
    """byte_pair learns frequent pieces of words; sentence_piece pieces of raw text; bytes needs no training; characters
    takes the corpus' alphabet."""

    algorithm: Literal["unigram", "bpe"] | None = None
    """Of sentence_piece: a unigram language model over pieces (the default), or byte pairs."""

    vocab_size: int | None = None
    """Number of tokens, the 7 special ones among them. byte_pair, sentence_piece: exactly so many (8,192 if left out).
    characters: at most so many, the most frequent first (left out: all). bytes has 263 and takes no other."""

    split: Split | None = None
    """Whose expression splits text before byte_pair merges: gpt-2's if left out. For a .tiktoken file: its own."""

    digits: Digits | None = None
    """Tokens for numbers: each digit one (the default of gpt-2, qwen2 and sentence_piece), up to three (llama-3), or
    whatever is frequent. Only pairs of split and digits that llama.cpp knows are taken."""

    special_tokens: bool = True
    """Off, for bytes and .tiktoken files: no <pad>, <s>, </s> … and no chat; bytes then has exactly 256 tokens."""

    extra_tokens: list[str] = field(default_factory=list)
    """More special tokens, such as <|fim_prefix|>,<|fim_suffix|>,<|fim_middle|>; vocab_size counts them."""

    max_bytes: int = 64 * 2**20
    """Bytes of text to learn from at most, spread over the whole corpus. It bounds memory and time."""

    import_from: Path | None = None
    """Take a tokenizer over instead: a Hugging Face folder or tokenizer.json, a SentencePiece .model, a .tiktoken file
    (with --split). Ids are the same as there, or the import is refused."""

    compare: list[Path] = field(default_factory=list)
    """Other tokenizers to measure beside it, as import_from takes them. A .tiktoken file is split as this tokenizer is
    told to be, or as llama-3's."""

    verify: bool = False
    """Hash every byte of the inputs before use; otherwise what is read is checked as it is read."""

    def __post_init__(self) -> None:
        positive(self, "max_bytes")
        if self.kind == "byte_pair":
            choose(self.split, self.digits)
        if self.import_from is not None:
            given = [name for name in ("algorithm", "vocab_size") if getattr(self, name) is not None]
            if given or self.kind != "byte_pair":
                raise ConfigError(f"{(given or ['kind'])[0]} is what import_from brings: leave it out")
            if not self.special_tokens and self.import_from.suffix != ".tiktoken":
                raise ConfigError("special_tokens is for bytes and .tiktoken files; others bring their own")
            return
        if self.corpus is None:
            raise ConfigError("corpus is needed, unless import_from is given")
        size = (263 if self.special_tokens else 256) + len(self.extra_tokens)
        between(
            self,
            {"byte_pair": 263, "sentence_piece": 359, "bytes": 256, "characters": 8}[self.kind]
            + len(self.extra_tokens),
            2**24,
            "vocab_size",
        )
        if self.kind == "bytes" and self.vocab_size not in (None, size):
            raise ConfigError(f"vocab_size must be {size} or left out for the kind bytes, got {self.vocab_size}")
        if self.kind != "bytes" and not self.special_tokens:
            raise ConfigError("special_tokens can be off for the kind bytes only")
        if self.algorithm is not None and self.kind != "sentence_piece":
            raise ConfigError(f"algorithm is for the kind sentence_piece, not {self.kind}")
        if self.split is not None and self.kind != "byte_pair":
            raise ConfigError(f"split is for the kind byte_pair, not {self.kind}")
        if self.digits is not None and self.kind not in ("byte_pair", "sentence_piece"):
            raise ConfigError(f"digits is for the kinds byte_pair and sentence_piece, not {self.kind}")
        if self.digits == "groups_of_3" and self.kind == "sentence_piece":
            raise ConfigError("digits must be individual or free for the kind sentence_piece, got groups_of_3")


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """From a corpus and a tokenizer to tokens."""

    corpus: Path
    """The corpus folder, as `seedbed prepare` writes it."""

    tokenizer: Path
    """The tokenizer folder, as `seedbed tokenizer` writes it; a model folder or a run serves too."""

    out: Path
    """The tokens folder to write; it must not exist yet."""

    workers: int | None = None
    """Processes at once. Left out: one a core for a large corpus, this one alone for a small one. The result is the
    same for any number."""

    verify: bool = False
    """Hash every byte of the inputs before use; otherwise what is read is checked as it is read."""

    def __post_init__(self) -> None:
        at_least(self, 1, "workers")


@dataclass(frozen=True, kw_only=True)
class TokensConfig:
    """Write tokens as another tool reads them (`export`), or make tokens of that tool's files (`import`)."""

    action: Literal["export", "import"]
    """What to do."""

    format: Literal["megatron", "nanogpt", "int32"]
    """megatron: .bin and .idx; nanogpt: .bin of 16 bits a token; int32: .bin with the length before each document, and
    .index of where each begins."""

    tokens: Path
    """The folder to read: a tokens folder to export, or the one that holds the files to import."""

    out: Path
    """The folder to write; it must not exist yet. An import makes a tokens folder."""

    tokenizer: Path | None = None
    """Tokenizer folder that the imported tokens were made with. An export brings its own."""

    end_of_text: int | None = None
    """Id of the token that ends each document of nanogpt files. Left out of an import: all is one document."""

    train: str = "train"
    """Name of the other tool's training files, without .bin."""

    val: str = "val"
    """Name of its validation files."""

    validation_fraction: float | None = None
    """Of an import where all is in the files that `train` names, as Megatron has it: the share of the documents that is
    kept apart to validate on, at even distances. Left out: `val` names files of their own."""

    def __post_init__(self) -> None:
        at_least(self, 0, "end_of_text")
        positive(self, "validation_fraction")
        between(self, 0, 0.5, "validation_fraction")
        if self.action == "export" and self.validation_fraction is not None:
            raise ConfigError("validation_fraction is for an import: both splits are exported as they are")
        if self.action == "import" and self.tokenizer is None:
            raise ConfigError("tokenizer is needed for an import: the one that the tokens were made with")
        if self.action == "export" and self.tokenizer is not None:
            raise ConfigError("tokenizer is for an import: tokens that are exported bring their own")
        if self.end_of_text is not None and (self.action, self.format) != ("import", "nanogpt"):
            raise ConfigError("end_of_text is for the import of nanogpt files; the others say where documents end")
        for key in ("train", "val"):
            name = getattr(self, key)
            if not name or Path(name).name != name:
                raise ConfigError(f"{key} must be the name of a file in the folder, got {name!r}")
        if self.train == self.val:
            raise ConfigError(f"val must be another name than train, got {self.val!r} for both")
