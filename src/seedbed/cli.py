"""The command line: find the command, read its config, call its function, print the result.

A command is one line of `COMMANDS`. Only the named command's modules are imported, and only its parser is built, so
that `seedbed --help` answers at once and torch comes when a model does.
"""

from __future__ import annotations

import difflib
import errno
import io
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from seedbed import __version__
from seedbed.errors import ConfigError, SeedbedError

if TYPE_CHECKING:
    from seedbed.configuration import Parser

MISTAKE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
SMALLER = "Make the batch smaller (--train.micro_batch keeps the loss the same), or the model."


@dataclass(frozen=True)
class Command:
    """A verb: what it does, and where its config class and its function live."""

    about: str
    config: str
    function: str
    positionals: tuple[str, ...] = ()
    """Fields that bare words fill."""
    speaks: bool = False
    """Prints for people by itself; otherwise the numbers of its result are printed."""


COMMANDS = {
    "quickstart": Command(
        "the whole way from text to a chat model, in minutes, on a CPU",
        "seedbed.quickstart.config:QuickstartConfig",
        "seedbed.quickstart.stages:quickstart",
        speaks=True,
    ),
    "doctor": Command(
        "what this machine has, what is missing, what it promises",
        "seedbed.doctor:DoctorConfig",
        "seedbed.doctor:doctor",
        speaks=True,
    ),
    "config": Command(
        "list the presets, show one, create a file to edit",
        "seedbed.presets:PresetsConfig",
        "seedbed.presets:presets",
        positionals=("action", "name"),
        speaks=True,
    ),
    "prepare": Command("text files → corpus", "seedbed.data.config:PrepareConfig", "seedbed.data.prepare:prepare"),
    "tokenizer": Command(
        "corpus → tokenizer", "seedbed.data.config:TokenizerConfig", "seedbed.data.vocabulary:train_tokenizer"
    ),
    "tokenize": Command(
        "corpus + tokenizer → tokens", "seedbed.data.config:TokenizeConfig", "seedbed.data.tokenize:tokenize"
    ),
    "tokens": Command(
        "tokens to and from the files of Megatron, nanoGPT and others",
        "seedbed.data.config:TokensConfig",
        "seedbed.data.token_formats.exchange:exchange",
        positionals=("action",),
    ),
    "pretrain": Command(
        "tokens → model", "seedbed.training.config:PretrainConfig", "seedbed.training.pretrain:pretrain"
    ),
    "finetune": Command(
        "model + conversations → model", "seedbed.tuning.config:FinetuneConfig", "seedbed.tuning.finetune:finetune"
    ),
    "distill": Command(
        "model + teacher + conversations → model",
        "seedbed.tuning.distilling.config:DistillConfig",
        "seedbed.tuning.distilling.distill:distill",
    ),
    "fuse": Command("base + adapter → model", "seedbed.tuning.config:FuseConfig", "seedbed.tuning.fuse:fuse"),
    "merge": Command(
        "models → one model", "seedbed.tuning.merging.config:MergeConfig", "seedbed.tuning.merging.merge:merge"
    ),
    "constitution": Command(
        "model + principles → preferences between its answers",
        "seedbed.alignment.constitution.config:ConstitutionConfig",
        "seedbed.alignment.constitution.constitution:constitution",
    ),
    "reward": Command(
        "model + preferences → reward model",
        "seedbed.alignment.reward_models.config:RewardConfig",
        "seedbed.alignment.reward_models.training:reward",
    ),
    "dpo": Command(
        "model + preferences → model",
        "seedbed.alignment.direct.config:DirectConfig",
        "seedbed.alignment.direct.dpo:dpo",
    ),
    "kto": Command(
        "model + judgements → model",
        "seedbed.alignment.direct.config:KtoConfig",
        "seedbed.alignment.direct.kto:kto",
    ),
    "ppo": Command(
        "model + problems → model, by rewards and a critic",
        "seedbed.alignment.policy.config:PpoConfig",
        "seedbed.alignment.policy.ppo:ppo",
    ),
    "grpo": Command(
        "model + problems → model, by rewards of its own answers",
        "seedbed.alignment.policy.config:GrpoConfig",
        "seedbed.alignment.policy.grpo:grpo",
    ),
    "quantize": Command(
        "model → model in fewer bits",
        "seedbed.quantization.config:QuantizeConfig",
        "seedbed.quantization.quantize:quantize",
        speaks=True,
    ),
    "evaluate": Command(
        "model → report", "seedbed.evaluation.config:EvaluateConfig", "seedbed.evaluation.evaluate:evaluate"
    ),
    "benchmark": Command(
        "how fast a model answers, and what it takes",
        "seedbed.evaluation.config:BenchmarkConfig",
        "seedbed.evaluation.benchmark:benchmark",
        speaks=True,
    ),
    "generate": Command(
        "continue a text",
        "seedbed.inference.config:GenerateConfig",
        "seedbed.inference.generate:generate",
        speaks=True,
    ),
    "chat": Command(
        "talk to a model", "seedbed.inference.config:ChatConfig", "seedbed.inference.chat:chat", speaks=True
    ),
    "inspect": Command(
        "parameters, FLOPs and memory of a model",
        "seedbed.model.config:InspectConfig",
        "seedbed.model.inspect:inspect_model",
        speaks=True,
    ),
    "sandbox": Command(
        "run a program that nobody vouches for, in a box",
        "seedbed.sandbox.config:SandboxConfig",
        "seedbed.sandbox.command:sandbox",
        positionals=("file",),
        speaks=True,
    ),
    "completion": Command(
        "completion for bash or zsh",
        "seedbed.completion:CompletionConfig",
        "seedbed.completion:completion",
        positionals=("shell",),
        speaks=True,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code: 0 well, 1 `doctor` found something missing, 2 a mistake, 3 to 5 an alert,
    75 a run that was cut off, 130 Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _open_streams()
    try:
        code = run(arguments)
        sys.stdout.flush()
        return code
    except SeedbedError as error:
        complain(error.problem, error.fix)
        return error.exit_code
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader went away, as in `seedbed --help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        return complain(*storage_words(error))
    except MemoryError as error:
        return complain(f"not enough memory: {' '.join(str(error).split())}", SMALLER)
    except Exception as error:  # Rust and C++ libraries tell of a full disk or memory in their own classes
        if "allocate memory" in str(error) or "out of memory" in str(error):
            return complain("not enough memory", SMALLER)
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        return complain(*storage_words(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))


def _open_streams() -> None:
    """A closed stream leads nowhere, and one that cannot hold a character shows a stand-in: neither ends the work."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (open as long as the process)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def run(arguments: Sequence[str]) -> int:
    """What `main` does, with errors raised."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(f"seedbed {__version__}")
        return 0
    name = arguments[0]
    request = parser(name).read(arguments[1:])
    if request.text is not None:
        sys.stdout.write(request.text)
        return 0
    result = load(COMMANDS[name].function)(request.config)
    if request.json:
        print(json.dumps(result, ensure_ascii=False, allow_nan=False))
    elif not COMMANDS[name].speaks:
        print(summary(name, result))
    if result.get("interrupted"):  # by Ctrl-C, and saved
        return INTERRUPTED
    return 1 if result.get("ok") is False else 0


ELSEWHERE = {
    **dict.fromkeys(("sft", "fine-tune", "fine_tune"), "finetune"),
    **{"train": "pretrain", "lora": "finetune --method lora", "qlora": "finetune --method qlora"},
    **{loss: f"dpo --loss {loss}" for loss in ("ipo", "simpo", "orpo", "hinge")},
    **{loss: f"grpo --loss {loss}" for loss in ("dr_grpo", "dapo", "rloo", "gspo")},
    **dict.fromkeys(("rm", "reward_model", "prm"), "reward"),
    **{"rlhf": "ppo", "gkd": "distill", "eval": "evaluate", "complete": "generate", "convert": "quantize"},
}
"""Commands by what other tools, or their methods, are called."""


def parser(name: str) -> Parser:
    """The parser of one command. Raises ConfigError, with the nearest names, when there is no such command."""
    if name not in COMMANDS:
        near = [ELSEWHERE[name]] if name in ELSEWHERE else difflib.get_close_matches(name, COMMANDS, n=2)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"unknown command {name!r}{hint}", f"Commands: {', '.join(COMMANDS)}")
    from seedbed.configuration import Parser

    return Parser(load(COMMANDS[name].config), f"seedbed {name}", COMMANDS[name].positionals)


def load(place: str) -> Any:
    """What `module:name` names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def overview() -> str:
    """The text of `seedbed --help`."""
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: seedbed COMMAND [--config PRESET|FILE] [--KEY VALUE ...]",
            "",
            "Grow a language model from raw text to a chat model.",
            "",
            *(f"  {name:<{width}}  {command.about}" for name, command in COMMANDS.items()),
            "",
            "seedbed COMMAND --help explains every key. seedbed --version prints the version.",
        ]
    )


def summary(name: str, result: dict[str, Any]) -> str:
    """What came out, a value a line."""
    from seedbed.runs import words

    lines = [f"  {words.name(key, result.get('stage'))}  {words.value(value)}" for key, value in _flat(result)]
    return "\n".join([f"{name}:", *lines])


def _flat(result: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers and texts of a result by dotted key; not the command, which the person has just typed."""
    for key, value in result.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float) and key != "command":
            yield prefix + key, value


def complain(problem: str, fix: str | None = None) -> int:
    """One line that says what was wrong, and under it how to mend it. SEEDBED_TRACEBACK=1 shows where it was raised."""
    if os.environ.get("SEEDBED_TRACEBACK"):
        traceback.print_exc()
    print(f"seedbed: {problem}", file=sys.stderr)
    for line in (fix or "").splitlines():
        print(f"         {line}", file=sys.stderr)
    return MISTAKE


def storage_words(error: OSError) -> tuple[str, str | None]:
    """An error of the operating system as a line. Stages tell theirs better (`runs.storage_error`); this is a net."""
    where = f"{error.filename}: " if error.filename else ""
    fix = "Free some space, or put --out on another disk." if error.errno == errno.ENOSPC else None
    return f"{where}{error.strerror or error}", fix


if __name__ == "__main__":
    sys.exit(main())
