"""Claim: of a model trained here on books, the perplexity on held-out books is within 0.5% of fp32 in int8 (W8A8) and
within 3% in int4 calibrated by GPTQ, in files of at most 27% and 16% of its bytes.

The model is the preset `pretrain/llama-tiny` with a vocabulary of 8,192 and a context of 256, trained for `--minutes`.
Calibration reads books that it was trained on; perplexity is that of `--text_tokens` of books that nothing was made of,
by the layers that the folder then has. Peers round the same matrices, tables too: bitsandbytes to NF4 with double
quantization, llama.cpp's Q4_0 and Q8_0 as the package gguf makes them; one that is not there is null.
Run: python benchmarks/quantization_quality.py --json   (about 45 minutes on 2 cores; --model RUN --tokens TOKENS: 10)
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.time_to_quality import BOOKS, WINDOW, write_tokens

PRESET = "pretrain/llama-tiny"
OURS = {
    "int8": ["--scheme=int8"],
    "int8_weights_alone": ["--scheme=int8", "--activations=stored"],
    "int4_nearest": ["--scheme=int4", "--method=nearest"],
    "int4_gptq": ["--scheme=int4", "--method=gptq"],
    "int4_awq": ["--scheme=int4", "--method=awq"],
    "nf4": ["--scheme=nf4"],
}
PEERS = {"bitsandbytes_nf4": "bitsandbytes", "llama_cpp_q8_0": "gguf", "llama_cpp_q4_0": "gguf"}
"""Each with the package that it comes in."""


def train(tokens: Path, out: Path, minutes: float) -> Path:
    from seedbed.configuration import from_arguments
    from seedbed.training.config import PretrainConfig
    from seedbed.training.pretrain import pretrain

    given = [f"--config={PRESET}", f"--data.tokens={tokens}", f"--out={out}", f"--train.minutes={minutes}"]
    given += [f"--model.context={WINDOW}", f"--data.length={WINDOW}", "--train.batch=16", "--train.validation_rows=64"]
    pretrain(from_arguments(PretrainConfig, given))
    return out


def ours(name: str, model: Path, tokens: Path, out: Path, text_tokens: int) -> dict[str, Any]:
    """What `seedbed quantize` says of a scheme."""
    from seedbed.configuration import from_arguments
    from seedbed.quantization.config import QuantizeConfig
    from seedbed.quantization.quantize import quantize

    given = [*OURS[name], f"--model={model}", f"--out={out / name}", f"--text={tokens}", f"--text_tokens={text_tokens}"]
    if {"--method=gptq", "--method=awq"} & set(given):
        given.append(f"--calibration={tokens}")
    with contextlib.redirect_stdout(sys.stderr):
        found = quantize(from_arguments(QuantizeConfig, given))
    return {**found["perplexity"], "share": found["share"], "seconds": found["seconds"]}


def peer(name: str, model: Path, tokens: Path, text_tokens: int) -> dict[str, Any]:
    """Our model with each matrix as the peer rounds it, and the bytes that it would take."""
    import torch

    from seedbed.evaluation.likelihood import measure_windows
    from seedbed.model.folder import load_model
    from seedbed.model.linears.layers import storable
    from seedbed.quantization.samples import read_windows

    plain, tokenizer = load_model(model, dtype="float32")
    windows = read_windows(tokens, tokenizer, split="val", length=plain.config.context, most=text_tokens)
    before = sum(weight.nbytes for weight in plain.parameters())
    after = before
    with torch.no_grad():
        for layer in storable(plain).values():
            rounded, size = ROUNDED[name](layer.weight)
            after += size - layer.weight.nbytes
            layer.weight.copy_(rounded)
    found = measure_windows(plain, tokenizer, windows, batch=8)
    return {"after": found.perplexity, "share": after / before}


def _bitsandbytes(weight: Any) -> tuple[Any, int]:
    import bitsandbytes.functional as peer

    packed, state = peer.quantize_4bit(weight.data, blocksize=64, quant_type="nf4", compress_statistics=True)
    return peer.dequantize_4bit(packed, state), packed.nbytes + sum(
        part.nbytes for part in (state.absmax, state.offset)
    )


def _gguf(kind: str) -> Callable[[Any], tuple[Any, int]]:
    def rounded(weight: Any) -> tuple[Any, int]:
        import torch
        from gguf import GGMLQuantizationType, quants

        found = quants.quantize(weight.numpy(force=True), GGMLQuantizationType[kind])
        return torch.from_numpy(quants.dequantize(found, GGMLQuantizationType[kind])), found.nbytes

    return rounded


ROUNDED = {"bitsandbytes_nf4": _bitsandbytes, "llama_cpp_q8_0": _gguf("Q8_0"), "llama_cpp_q4_0": _gguf("Q4_0")}


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures meet; a figure that is no number meets none."""
    return {
        "int8 within 0.5% of the perplexity": abs(figures["int8_change"]) <= 0.005,
        "int4 within 3% of the perplexity": abs(figures["int4_change"]) <= 0.03,
        "int8 in at most 27% of the bytes": figures["int8_share"] <= 0.27,
        "int4 in at most 16% of the bytes": figures["int4_share"] <= 0.16,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", type=Path, help="a run or model folder; left out: one is trained")
    parser.add_argument("--tokens", type=Path, help="its tokens folder; left out: made of --books")
    parser.add_argument("--books", type=Path, default=BOOKS, help=".jsonl.zst, a book a row")
    parser.add_argument("--minutes", type=float, default=30, help="of training, where no model is given")
    parser.add_argument("--text_tokens", type=int, default=65_536, help="held-out tokens that are predicted")
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments = parser.parse_args()
    if arguments.model is not None and arguments.tokens is None:
        parser.error("--model needs the tokens that go with it: give --tokens")
    if arguments.tokens is None and not arguments.books.is_file():
        parser.error(f"{arguments.books} is not there: give --books FILE, or --model and --tokens")
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        place, tokens, model = Path(temporary), arguments.tokens, arguments.model
        if tokens is None:
            write_tokens(arguments.books, place / "tokens")
            tokens = place / "tokens" / "held_out"
        if model is None:
            model = train(tokens, place / "run", arguments.minutes)
        for name in OURS:
            rows[name] = ours(name, model, tokens, place, arguments.text_tokens)
            fp32 = rows[name].pop("before")
        for name, package in PEERS.items():
            is_there = find_spec(package) is not None
            rows[name] = peer(name, model, tokens, arguments.text_tokens) if is_there else None
            if is_there:
                rows[name] |= {"change": rows[name]["after"] / fp32 - 1, "version": version(package)}
    if not arguments.json:
        print(f"{'fp32':<20}{fp32:>10.3f}")
        for name, row in rows.items():
            said = (
                "" if row is None else f"{row['after']:>10.3f}{100 * row['change']:>+9.2f}%{100 * row['share']:>9.2f}%"
            )
            print(f"{name:<20}{said}")
    figures = {"fp32_perplexity": fp32, **rows}
    for claimed, name in (("int8", "int8"), ("int4", "int4_gptq")):
        figures |= {f"{claimed}_change": rows[name]["change"], f"{claimed}_share": rows[name]["share"]}
    figures |= {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
