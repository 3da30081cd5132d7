"""SentencePiece (Kudo and Richardson 2018, arXiv:1808.06226): pieces of raw text, spaces included, by byte pairs or by
a unigram language model (Kudo 2018, arXiv:1804.10959).

Grown here, a tokenizer changes no text (normalisation "identity", no space in front, none removed) and spells what it
does not know in bytes, so every Unicode string comes back. Two things differ from a .model file, neither in the ids:

- A space is a space in the vocabulary, not ▁. So a ▁ in a text stays one and is spelled in bytes; SentencePiece itself
  reads it as a space and cannot give it back. Ids are SentencePiece's own on every text without this character.
- Scores of the unigram model are rounded to SCORE_STEP. Sums of them are then exact, and equally probable ways to
  split are the same ones in SentencePiece, which adds in single precision (as long as sums are: for some thousand
  tokens in a run), and in `tokenizers`, which adds in double.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from seedbed.errors import DataError
from seedbed.extras import missing
from seedbed.tokenizers.chat import find_template
from seedbed.tokenizers.model_file import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER, ModelFile, read_model
from seedbed.tokenizers.scheme import SPACE
from seedbed.tokenizers.tokenizer import SPECIALS, Tokenizer

Algorithm = Literal["unigram", "bpe"]

ASCII = "".join(map(chr, range(33, 127)))
"""Always in the vocabulary: names such as <0x0A> can then be spelled, and as text never become what they name."""

SMALLEST = len(SPECIALS) + 256 + len(ASCII) + 1
"""The special tokens, the bytes, the ASCII characters and the space."""

SCORE_STEP = 2.0**-10

NEVER = -65_536.0
"""Score of a token that is no text: lower than any way to spell its name."""

THREADS = 4
"""Fixed, for the sums of the unigram model depend on it."""

LONGEST_LINE = 1 << 14
"""Characters."""


def train(
    texts: Iterable[str], vocab_size: int, *, algorithm: Algorithm = "unigram", individual_digits: bool = True
) -> Tokenizer:
    """Learns exactly `vocab_size` tokens, the special ones and 256 bytes among them; the same texts in the same order
    give the same tokenizer. ConfigError when `sentencepiece` is missing, DataError when the texts are too few."""
    described = train_model(texts, vocab_size, algorithm=algorithm, individual_digits=individual_digits)
    return Tokenizer.build(_own(read_model(described)), find_template("chatml"))


def train_model(texts: Iterable[str], vocab_size: int, *, algorithm: Algorithm, individual_digits: bool) -> bytes:
    """What `train` learns, as the bytes of a .model file that SentencePiece reads."""
    try:
        import sentencepiece  # an extra
    except ImportError as error:
        raise missing("the kind sentence_piece", "sentencepiece", "data") from error
    written = io.BytesIO()
    pad, unk, bos, eos, *others = SPECIALS
    specials: dict[str, Any] = {"pad_piece": pad, "unk_piece": unk, "bos_piece": bos, "eos_piece": eos}
    specials |= {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "control_symbols": others}
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=written,
            model_type=algorithm,
            vocab_size=vocab_size,
            byte_fallback=True,
            split_digits=individual_digits,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            required_chars=ASCII,
            max_sentence_length=4 * LONGEST_LINE,
            num_threads=THREADS,
            minloglevel=2,
            **specials,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"a vocabulary of {vocab_size:,} cannot be learned from these texts: {reason}",
            "Choose another --vocab_size, or give more text.",
        ) from error
    return read_model(written.getvalue()).with_scores_rounded(SCORE_STEP)


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), LONGEST_LINE):
                yield line[start : start + LONGEST_LINE]


def _own(model: ModelFile) -> tokenizers.Tokenizer:
    names = [piece if type == CONTROL else piece.replace(SPACE, " ") for piece, _, type in model.pieces]
    backend = tokenizers.Tokenizer(_algorithm(model, names))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return backend


def from_model(model: ModelFile) -> Tokenizer:
    """The tokenizer that SentencePiece is with this .model file.

    DataError, saying why, for a model that `tokenizers` cannot run with the same ids: rules of normalisation, spaces
    removed or put behind, user symbols in a unigram model, a token with characters that are no tokens themselves.
    """
    problem = _why_not(model)
    if problem is not None:
        raise DataError(f"this SentencePiece model cannot be run exactly: {problem}")
    backend = tokenizers.Tokenizer(_algorithm(model, [piece for piece, _, _ in model.pieces]))
    replace = normalizers.Replace(" ", SPACE)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replace]) if model.adds_prefix else replace
    steps: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if model.adds_prefix else steps)
    specials = [piece for piece, _, type in model.pieces if type in (CONTROL, UNKNOWN)]
    backend.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in specials])
    # As the text has them: they are found before spaces are replaced.
    symbols = [piece.replace(SPACE, " ") for piece, _, type in model.pieces if type == USER]
    backend.add_tokens([AddedToken(piece, special=False, normalized=False) for piece in symbols])
    config: dict[str, Any] = {
        f"{name}_token": model.pieces[id][0] for name, id in model.special_ids.items() if 0 <= id < len(model.pieces)
    }
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    return Tokenizer(backend.to_str(pretty=True), config, None)


def _why_not(model: ModelFile) -> str | None:
    types = [type for *_, type in model.pieces]
    if model.algorithm not in ("bpe", "unigram"):
        return f"it is of the type {model.algorithm}, not bpe or unigram"
    if model.normalizes:
        return "it has rules of normalisation (spm_train: --normalization_rule_name=identity has none)"
    if model.removes_spaces:
        return "it removes spaces (spm_train: --remove_extra_whitespaces=false keeps them)"
    if model.suffixes or not model.escapes:
        return "it marks spaces behind words, or not at all"
    if UNUSED in types:
        return "it has unused pieces"
    if USER in types and (model.algorithm == "unigram" or model.adds_prefix):
        return "it has user-defined symbols"
    if any(SPACE in piece and piece.strip(SPACE) for piece, _, type in model.pieces if type == USER):
        return "it has user-defined symbols with spaces"
    known = {piece for piece, _, type in model.pieces if type in (NORMAL, USER)}
    spelled = [piece for piece, _, type in model.pieces if type == NORMAL or model.algorithm == "unigram"]
    missing = [character for piece in spelled for character in piece if character not in known]
    if missing:
        return f"the character {missing[0]!r} is in a token but is none itself"
    return None


def _algorithm(model: ModelFile, names: list[str]) -> models.Model:
    types = [type for *_, type in model.pieces]
    falls_back = BYTE in types
    if model.algorithm == "unigram":
        scores = [score if type == NORMAL else NEVER for _, score, type in model.pieces]
        return models.Unigram(list(zip(names, scores, strict=True)), types.index(UNKNOWN), falls_back)
    score_of = {
        name: score for name, (_, score, type) in zip(names, model.pieces, strict=True) if type in (NORMAL, USER)
    }
    merges = [
        (-score, cut, token[:cut], token[cut:])
        for token, score in score_of.items()
        for cut in range(1, len(token))
        if token[:cut] in score_of and token[cut:] in score_of
    ]
    return models.BPE(
        vocab={name: id for id, name in enumerate(names)},
        merges=[(left, right) for _, _, left, right in sorted(merges)],
        unk_token=names[types.index(UNKNOWN)],
        fuse_unk=True,
        byte_fallback=falls_back,
    )
