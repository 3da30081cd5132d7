"""A 72M Llama that generates: by our engine, by transformers, and by llama.cpp as node-llama-cpp brings it.

All have the same weights, drawn at random. Each measurement is a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SIZES = {"layers": 12, "width": 512, "heads": 8, "ff_width": 1408, "vocab_size": 32768, "context": 2048}
THREADS = 2
KINDS = ("ours_int8", "ours_fp32", "transformers", "llama_cpp_q8", "llama_cpp_f32")


def prompts(batch: int, length: int) -> list[list[int]]:
    """Tokens at random, the same for all."""
    import numpy as np

    drawn = np.random.default_rng(0).integers(3, SIZES["vocab_size"], size=(batch, length))
    return [[int(token) for token in row] for row in drawn]


def our_model() -> Any:
    import torch

    from seedbed.model.config import ModelConfig
    from seedbed.model.transformer import Transformer

    torch.manual_seed(0)
    config = ModelConfig(**SIZES, qk_norm=False, zero_projections=False, norm_epsilon=1e-6, rope_base=10_000.0)
    return Transformer(config).eval()


def our_engine(scheme: str, *, rows: int) -> Any:
    from seedbed.inference.config import EngineConfig
    from seedbed.inference.engine import Engine
    from seedbed.model.linears.layers import quantise
    from seedbed.model.packed.pack import pack
    from seedbed.tokenizers import characters

    tokenizer = characters.train(["".join(map(chr, range(0x3400, 0x3400 + SIZES["vocab_size"] + 99)))])
    tokenizer.end_ids = ()
    model = our_model()
    return Engine(pack(quantise(model) if scheme == "int8" else model), tokenizer, EngineConfig(rows=rows))


def ours(scheme: str, batch: int, length: int, new: int) -> dict[str, float]:
    from seedbed.inference.config import SamplingConfig

    engine = our_engine(scheme, rows=batch)
    for round_ in range(2):  # the first one compiles and warms up
        began = time.perf_counter()
        made = [
            engine.submit(ids, SamplingConfig(max_tokens=new, temperature=0), salt=bytes([round_]))
            for ids in prompts(batch, length)
        ]
        first = None
        while any(generation.reason is None for generation in made):
            engine.step()
            if first is None and all(generation.made for generation in made):
                first, before = time.perf_counter(), sum(len(generation.made) for generation in made)
        ended = time.perf_counter()
    tokens = sum(len(generation.made) for generation in made)
    assert tokens == batch * new and first is not None
    return told(tokens - before, ended - first, first - began)


def told(tokens: int, seconds: float, first: float) -> dict[str, float]:
    """Tokens after the first of each row, and how long they took; and how long the first ones took."""
    return {"tokens_per_s": tokens / seconds if tokens else 0.0, "first_ms": 1e3 * first}


def transformers(batch: int, length: int, new: int) -> dict[str, float]:
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
    tokens = torch.tensor(prompts(batch, length))
    how = GenerationConfig(max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0)
    for _ in range(2):
        clock, began = Clock(), time.perf_counter()
        with torch.inference_mode():
            peer.generate(
                tokens, attention_mask=torch.ones_like(tokens), generation_config=how, stopping_criteria=[clock]
            )
    seconds = clock.times[-1] - clock.times[0]
    return told(batch * (len(clock.times) - 1), seconds, clock.times[0] - began)


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
const [path, threads, count, rows] = [process.argv[2], ...process.argv.slice(3, 5).map(Number),
                                      JSON.parse(process.argv[5])];
const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: threads});
const model = await llama.loadModel({modelPath: path});
const context = await model.createContext({sequences: rows.length, contextSize: rows[0].length + count + 64,
                                           batchSize: 512, threads});
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
  result = {after, seconds: (last - first) / 1e3, first: (first - began) / 1e3, tokens: times.flat().length};
}
console.log(JSON.stringify(result));
process.exit(0);
"""


def llama_cpp(node: Path, gguf: Path, batch: int, length: int, new: int) -> dict[str, float]:
    script = node / "decode.mjs"
    script.write_text(JAVASCRIPT, encoding="utf-8")
    command = ["node", str(script), str(gguf), str(THREADS), str(new), json.dumps(prompts(batch, length))]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=node)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tokens"] == batch * new
    return told(found["after"], found["seconds"], found["first"])


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
    writer.add_tokenizer_model("llama")  # whose single bytes have to be there; no token is ever turned into text
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [f"t{number}" for number in range(len(pieces), SIZES["vocab_size"])]
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0] * len(pieces))
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (len(pieces) - 259)])
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


def measure(kind: str, batch: int, length: int, new: int, node: Path | None) -> dict[str, float]:
    if kind.startswith("llama_cpp"):
        assert node is not None
        path = node / f"{kind}.gguf"
        if not path.is_file():
            write_gguf(path, q8=kind.endswith("q8"))
        return llama_cpp(node, path, batch, length, new)
    import torch

    torch.set_num_threads(THREADS)
    if kind == "transformers":
        return transformers(batch, length, new)
    return ours(kind.removeprefix("ours_"), batch, length, new)


def is_there(kind: str, node: Path | None) -> bool:
    if kind.startswith("llama_cpp"):
        files = node is not None and (node / "node_modules" / "node-llama-cpp").is_dir()
        return files and bool(shutil.which("node")) and importlib.util.find_spec("gguf") is not None
    return kind != "transformers" or importlib.util.find_spec("transformers") is not None


def in_turns(
    script: str, places: Sequence[tuple[str, int]], rounds: int, node: Path | None, *, quiet: bool
) -> dict[tuple[str, int], list[dict[str, float]]]:
    """The measurements of kinds at batches or lengths, each in a process of its own that runs `script`."""
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for kind, size in places:
            command = [sys.executable, script, "--only", kind, str(size), *(["--node", str(node)] if node else [])]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.setdefault((kind, size), []).append(json.loads(done.stdout.splitlines()[-1]))
            if not quiet:
                print(kind, size, found[kind, size][-1], flush=True)
    return found


def arguments_of(description: str | None, size: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", type=Path, help="folder into which npm installed node-llama-cpp")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind, in turns")
    parser.add_argument("--only", nargs=2, metavar=("KIND", size), help="one measurement, here")
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    return parser.parse_args()
