"""Claim: a 72M Llama (12 × 512, feed-forward 1408, vocabulary 32768) in int8 makes ≥ 1, 1.8 and 3 × the tokens a second
of llama.cpp's Q8_0 at batch 1, 8 and 32, and ≥ 4, 4 and 5 × those of transformers; in fp32 ≥ 1 × llama.cpp's F32.

64 tokens in, 64 out, two threads, greedy, no end token; tokens a second are those after the first of each row. All have
the same weights, drawn at random; int8 gives the same bits whoever else is served. Peers: transformers (PyPI) and
llama.cpp, prebuilt in node-llama-cpp (npm). One that is not there is null. Each measurement is a process of its own, in
turns.
Run: npm install --prefix FOLDER --ignore-scripts --omit=optional node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
     pip install gguf
     python benchmarks/decode.py --node FOLDER --json   (about 10 minutes)
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIZES = {"layers": 12, "width": 512, "heads": 8, "ff_width": 1408, "vocab_size": 32768, "context": 2048}
BATCHES = (1, 8, 32)
PROMPT = NEW = 64
THREADS = 2
KINDS = ("ours_int8", "ours_fp32", "transformers", "llama_cpp_q8", "llama_cpp_f32")
CLAIMS = {  # of int8, by batch: times llama.cpp's Q8_0, times transformers
    1: (1.0, 4.0),
    8: (1.8, 4.0),
    32: (3.0, 5.0),
}


def prompts(batch: int) -> list[list[int]]:
    """Tokens that no two rows share."""
    import numpy as np

    drawn = np.random.default_rng(0).integers(3, SIZES["vocab_size"], size=(batch, PROMPT))
    return [[int(token) for token in row] for row in drawn]


def our_model() -> Any:
    import torch

    from seedbed.model.config import ModelConfig
    from seedbed.model.transformer import Transformer

    torch.manual_seed(0)
    config = ModelConfig(**SIZES, qk_norm=False, zero_projections=False, norm_epsilon=1e-6, rope_base=10_000.0)
    return Transformer(config).eval()


def ours(scheme: str, batch: int) -> dict[str, float]:
    from seedbed.inference.config import EngineConfig, SamplingConfig
    from seedbed.inference.engine import Engine
    from seedbed.model.linears.int8 import quantise
    from seedbed.model.packing import pack
    from seedbed.tokenizers import bytes as byte_tokenizer

    tokenizer = byte_tokenizer.build()
    tokenizer.end_ids = ()
    model = our_model()
    engine = Engine(pack(quantise(model) if scheme == "int8" else model), tokenizer, EngineConfig(rows=batch))
    for round_ in range(2):  # the first one compiles and warms up
        began = time.perf_counter()
        made = [
            engine.submit(ids, SamplingConfig(max_tokens=NEW, temperature=0), salt=bytes([round_]))
            for ids in prompts(batch)
        ]
        first = None
        while any(generation.reason is None for generation in made):
            engine.step()
            if first is None and all(generation.made for generation in made):
                first, before = time.perf_counter(), sum(len(generation.made) for generation in made)
        ended = time.perf_counter()
    tokens = sum(len(generation.made) for generation in made)
    assert tokens == batch * NEW and first is not None
    return {"tokens_per_s": (tokens - before) / (ended - first), "first_ms": 1e3 * (first - began)}


def transformers(batch: int) -> dict[str, float]:
    import torch
    from transformers import GenerationConfig, StoppingCriteria

    class Clock(StoppingCriteria):
        """Asked after each step."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def __call__(self, tokens: Any, scores: Any, **other: Any) -> Any:
            self.times.append(time.perf_counter())
            return torch.zeros(len(tokens), dtype=torch.bool)

    peer = theirs()
    tokens = torch.tensor(prompts(batch))
    how = GenerationConfig(max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0)
    for _ in range(2):
        clock, began = Clock(), time.perf_counter()
        with torch.inference_mode():
            peer.generate(tokens, torch.ones_like(tokens), generation_config=how, stopping_criteria=[clock])
    seconds = clock.times[-1] - clock.times[0]
    return {"tokens_per_s": batch * (len(clock.times) - 1) / seconds, "first_ms": 1e3 * (clock.times[0] - began)}


def theirs() -> Any:
    """transformers' Llama with our weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **{"num_hidden_layers": SIZES["layers"], "hidden_size": SIZES["width"], "intermediate_size": SIZES["ff_width"]},
        **{"num_attention_heads": SIZES["heads"], "vocab_size": SIZES["vocab_size"], "tie_word_embeddings": False},
        max_position_embeddings=SIZES["context"],
    )
    peer = LlamaForCausalLM(config).eval()
    peer.load_state_dict(in_llama_names(our_model()))
    return peer


def in_llama_names(model: Any) -> dict[str, Any]:
    """Our weights by the names of transformers' Llama."""
    parts = {
        "attention_norm": "input_layernorm",
        "feedforward_norm": "post_attention_layernorm",
        **{f"attention.{ours}": f"self_attn.{ours[0]}_proj" for ours in ("query", "key", "value", "output")},
        **{f"feedforward.{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
    }
    named = {"embedding": "model.embed_tokens", "final_norm": "model.norm", "head": "lm_head"}
    named |= {
        f"blocks.{layer}.{ours}": f"model.layers.{layer}.{theirs}"
        for layer in range(SIZES["layers"])
        for ours, theirs in parts.items()
    }
    return {f"{named[name.removesuffix('.weight')]}.weight": w.detach() for name, w in model.named_parameters()}


JAVASCRIPT = """
import {getLlama} from "node-llama-cpp";
const [path, batch, threads, count, rows] = [process.argv[2], ...process.argv.slice(3, 6).map(Number),
                                             JSON.parse(process.argv[6])];
const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: threads});
const model = await llama.loadModel({modelPath: path});
const context = await model.createContext({sequences: batch, contextSize: 256, batchSize: 512, threads});
const take = async (sequence, ids, times) => {
  let made = 0;
  for await (const token of sequence.evaluate(ids, {temperature: 0, yieldEogToken: true})) {
    times.push(performance.now());
    if (++made === count) break;
  }
};
const sequences = rows.map(() => context.getSequence());
let result;
for (let round = 0; round < 2; round++) {
  const began = performance.now(), times = rows.map(() => []);
  for (const sequence of sequences) await sequence.clearHistory();
  await Promise.all(sequences.map((sequence, i) => take(sequence, rows[i], times[i])));
  const first = Math.max(...times.map(row => row[0])), last = Math.max(...times.map(row => row.at(-1)));
  const after = times.flat().filter(time => time > first).length;
  result = {tokens_per_s: after / (last - first) * 1e3, first_ms: first - began, tokens: times.flat().length};
}
console.log(JSON.stringify(result));
process.exit(0);
"""


def llama_cpp(node: Path, gguf: Path, batch: int) -> dict[str, float]:
    script = node / "decode.mjs"
    script.write_text(JAVASCRIPT, encoding="utf-8")
    command = ["node", str(script), str(gguf), str(batch), str(THREADS), str(NEW), json.dumps(prompts(batch))]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=node)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("tokens") == batch * NEW
    return found


def write_gguf(path: Path, *, q8: bool) -> None:
    """Our weights as llama.cpp reads them: matrices in Q8_0 or F32, rotary pairs side by side."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    head = SIZES["width"] // SIZES["heads"]
    writer.add_block_count(SIZES["layers"])
    writer.add_context_length(SIZES["context"])
    writer.add_embedding_length(SIZES["width"])
    writer.add_feed_forward_length(SIZES["ff_width"])
    writer.add_head_count(SIZES["heads"])
    writer.add_head_count_kv(SIZES["heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(SIZES["vocab_size"])
    writer.add_tokenizer_model("llama")  # tokens without meaning: none is ever turned into text
    pieces = [b"<unk>", b"<s>", b"</s>", *(f"t{number}".encode() for number in range(3, SIZES["vocab_size"]))]
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0] * len(pieces))
    writer.add_token_types([2, 3, 3, *[1] * (len(pieces) - 3)])
    parts = {
        "attention_norm": "attn_norm",
        "feedforward_norm": "ffn_norm",
        **{f"attention.{ours}": f"attn_{ours[0]}" for ours in ("query", "key", "value")},
        "attention.output": "attn_output",
        **{f"feedforward.{part}": f"ffn_{part}" for part in ("gate", "up", "down")},
    }
    for name, weight in our_model().named_parameters():
        room, _, inside = name.removesuffix(".weight").partition(".")
        number, _, part = inside.partition(".")
        plain = {"embedding": "token_embd", "final_norm": "output_norm", "head": "output"}
        array = weight.detach().numpy()
        if part in ("attention.query", "attention.key"):
            array = array.reshape(SIZES["heads"], 2, head // 2, -1).swapaxes(1, 2).reshape(array.shape)
        kind = gguf.GGMLQuantizationType.Q8_0 if q8 and array.ndim == 2 else gguf.GGMLQuantizationType.F32
        target = f"blk.{number}.{parts[part]}.weight" if part else f"{plain[room]}.weight"
        writer.add_tensor(target, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measure(kind: str, batch: int, node: Path | None) -> dict[str, float]:
    if kind.startswith("llama_cpp"):
        assert node is not None
        path = node / f"{kind}.gguf"
        if not path.is_file():
            write_gguf(path, q8=kind.endswith("q8"))
        return llama_cpp(node, path, batch)
    import torch

    torch.set_num_threads(THREADS)
    return transformers(batch) if kind == "transformers" else ours(kind.removeprefix("ours_"), batch)


def is_there(kind: str, node: Path | None) -> bool:
    if kind.startswith("llama_cpp"):
        files = node is not None and (node / "node_modules" / "node-llama-cpp").is_dir()
        return files and bool(shutil.which("node")) and importlib.util.find_spec("gguf") is not None
    return kind != "transformers" or importlib.util.find_spec("transformers") is not None


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures meet; a peer that is not there is not judged."""
    claims = {}
    for batch, (llama, peer) in CLAIMS.items():
        found = figures[f"batch_{batch}"]
        for name, times in (("llama_cpp_q8", llama), ("transformers", peer)):
            if found[name] is not None:
                claims[f"int8 at batch {batch}: {times:g} × {name}"] = found["ours_int8"] >= times * found[name]
        if found["llama_cpp_f32"] is not None:
            claims[f"fp32 at batch {batch}: 1 × llama_cpp_f32"] = found["ours_fp32"] >= found["llama_cpp_f32"]
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", type=Path, help="folder into which npm installed node-llama-cpp")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind, in turns")
    parser.add_argument("--only", nargs=2, metavar=("KIND", "BATCH"), help="one measurement, here")
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only[0], int(arguments.only[1]), arguments.node)))
        return
    kinds = [kind for kind in KINDS if is_there(kind, arguments.node)]
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(arguments.rounds):
        for batch in BATCHES:
            for kind in kinds:
                command = [sys.executable, __file__, "--only", kind, str(batch)]
                command += ["--node", str(arguments.node)] if arguments.node else []
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found.setdefault((kind, batch), []).append(json.loads(done.stdout.splitlines()[-1]))
                if not arguments.json:
                    print(kind, batch, found[kind, batch][-1], flush=True)

    def median(kind: str, batch: int, key: str) -> float | None:
        measured = [figures[key] for figures in found.get((kind, batch), [])]
        return round(statistics.median(measured), 1) if measured else None

    figures: dict[str, Any] = {
        f"batch_{batch}": {kind: median(kind, batch, "tokens_per_s") for kind in KINDS} for batch in BATCHES
    }
    figures |= {f"first_ms_{batch}": {kind: median(kind, batch, "first_ms") for kind in KINDS} for batch in BATCHES}
    figures |= {"threads": THREADS, "machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
