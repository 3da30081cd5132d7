"""The parser: what it accepts, what it refuses, and the one line it says then."""

from __future__ import annotations

import enum
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed import cli
from seedbed.alignment.direct.config import DirectConfig
from seedbed.alignment.policy.config import GrpoConfig, PpoConfig
from seedbed.configuration import (
    Parser,
    at_least,
    between,
    find_preset,
    from_arguments,
    list_presets,
    load_config,
    positive,
    save_config,
    to_dict,
)
from seedbed.configuration import presets as presets_module
from seedbed.configuration.options import DIFFERENT, ELSEWHERE
from seedbed.data.config import TokenizerConfig
from seedbed.errors import ConfigError
from seedbed.runs import command
from seedbed.training.config import PretrainConfig
from seedbed.tuning.config import FinetuneConfig
from seedbed.tuning.merging.config import MergeConfig


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the rate moves."""

    warmup: int = 10
    """Steps until the peak."""

    def __post_init__(self):
        at_least(self, 0, "warmup")
        if self.warmup == 13:
            raise ConfigError("the number 13 brings bad luck")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Which optimizer, and its rates."""

    name: Literal["adamw", "muon"] = "muon"
    """Which one."""

    matrix_rate: float = 0.02
    """Peak rate, 100% of it."""

    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the moments."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Its schedule."""

    def __post_init__(self):
        positive(self, "matrix_rate")


@dataclass(frozen=True, kw_only=True)
class PartConfig:
    """One part of a mixture."""

    path: str
    """Folder."""

    weight: float = 1.0
    """Share."""

    def __post_init__(self):
        positive(self, "weight")


@dataclass(frozen=True, kw_only=True)
class ExampleConfig:
    """An example with every kind of field."""

    tokens: str
    """Folder that tokenize wrote."""

    depth: int | None = None
    """Layers. Left out: chosen."""

    heads: int = None  # type: ignore[assignment]
    """Derived, and typed as what it then is."""

    share: bool = False
    """Whether to share."""

    stop: list[str] = field(default_factory=list)
    """Strings that end."""

    sizes: list[int] = field(default_factory=lambda: [1, 2])
    """Sizes."""

    scores: dict[str, float] = field(default_factory=dict)
    """By name."""

    colour: Colour = Colour.RED
    """An enumeration."""

    place: Path | None = None
    """A path."""

    compiled: Literal["auto", "on", "off"] = "auto"
    """Words that YAML takes for truth values."""

    track: list[Literal["wandb", "mlflow"]] = field(default_factory=list)
    """Words of a few."""

    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(matrix_rate=0.5))
    """The optimizer."""

    teacher: OptimizerConfig | None = None
    """A group that may be left out."""

    parts: list[PartConfig] = field(default_factory=list)
    """A list of groups."""

    for_: str | None = None
    """A key that is a word of Python."""

    prompt: str = "Once"
    """Any text."""


BILLION_LAUGHS = b"stop:\n  - &a [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n" + b"".join(
    b"  - &%c [%s]\n" % (98 + i, b", ".join([b"*%c" % (97 + i)] * 10)) for i in range(9)
)


def read(*arguments):
    return from_arguments(ExampleConfig, ["--tokens", "T", *arguments])


def mistake(*arguments):
    with pytest.raises(ConfigError) as caught:
        from_arguments(ExampleConfig, arguments)
    assert "\n" not in caught.value.problem
    return caught.value.problem


@pytest.fixture
def presets(tmp_path, monkeypatch):
    folder = tmp_path / "presets"
    (folder / "data").mkdir(parents=True)
    (folder / "tiny.yaml").write_text("# pretrain: a tiny one\ntokens: from-tiny\noptimizer:\n  matrix_rate: 1e-3\n")
    (folder / "small.yaml").write_text("# tokenize: a small one\n")
    (folder / "data" / "books.yaml").write_text("# prepare: books\n")
    monkeypatch.setattr(presets_module, "PRESETS", folder)
    return folder


class TestReading:
    def test_a_nested_default_of_the_field_wins_over_that_of_its_class(self):
        assert read().optimizer == OptimizerConfig(matrix_rate=0.5)

    def test_a_dotted_key_changes_only_itself(self):
        assert read("--optimizer.schedule.warmup", "3").optimizer == OptimizerConfig(
            matrix_rate=0.5, schedule=ScheduleConfig(warmup=3)
        )

    @pytest.mark.parametrize(
        ("arguments", "key", "value"),
        [
            (["--depth", "4"], "depth", 4),
            (["--depth=null"], "depth", None),
            (["--heads", "null"], "heads", None),
            (["--heads", "4"], "heads", 4),
            (["--share"], "share", True),
            (["--share", "false"], "share", False),
            (["--share", "--depth", "4"], "share", True),
            (["--stop", "a,b c"], "stop", ["a", "b c"]),
            (["--stop", '["a,b"]'], "stop", ["a,b"]),
            (["--stop", "1"], "stop", ["1"]),
            (["--stop+", "x", "--stop+", "y"], "stop", ["x", "y"]),
            (["--sizes", "3,4"], "sizes", [3, 4]),
            (["--sizes", ""], "sizes", []),
            (["--scores.a", "5"], "scores", {"a": 5.0}),
            (["--colour", "BLUE"], "colour", Colour.BLUE),
            (["--place", "/tmp/x"], "place", Path("/tmp/x")),
            (["--for", "x"], "for_", "x"),
            *((["--compiled", word], "compiled", "off") for word in ("off", "False", "false", "0", "no")),
            *((["--compiled", word], "compiled", "on") for word in ("on", "True", "1", "yes")),
            (["--track", "wandb"], "track", ["wandb"]),
            (["--track=wandb, mlflow"], "track", ["wandb", "mlflow"]),
            (["--track", "[wandb]"], "track", ["wandb"]),
            (
                ["--parts", "[{path: a}, {path: b, weight: 2}]"],
                "parts",
                [PartConfig(path="a"), PartConfig(path="b", weight=2)],
            ),
            (["--teacher.matrix_rate", "7"], "teacher", OptimizerConfig(matrix_rate=7)),
            (["--teacher", "{}"], "teacher", OptimizerConfig()),
        ],
    )
    def test_a_value_arrives_as_its_type(self, arguments, key, value):
        assert getattr(read(*arguments), key) == value

    @pytest.mark.parametrize(
        "changes",
        [
            {"for_": "finetune"},
            {"stop": ["a", "b c"], "sizes": [3, 4], "place": Path("a b"), "optimizer": OptimizerConfig(matrix_rate=7)},
            *({"stop": stop} for stop in (["a,b", "c"], ["[a", "b"], ["null"], [""], [" a"], ["ä 'x'", '"', "-1"])),
        ],
    )
    def test_the_command_of_a_config_makes_that_config(self, changes):
        config = ExampleConfig(tokens="T", **changes)
        assert from_arguments(ExampleConfig, shlex.split(command("verb", config))[2:]) == config

    @pytest.mark.parametrize(
        "text", ["null", "1e3", "[", "a: b", "- x", "-1", "# no", "two\nlines", "", "ÄÖ 語", "true"]
    )
    def test_text_stays_as_it_was_written(self, text):
        assert read("--prompt", text).prompt == text
        assert read(f"--prompt={text}").prompt == text

    def test_scientific_notation_is_a_number_in_files_and_options(self, tmp_path):
        (tmp_path / "a.yaml").write_text("optimizer: {matrix_rate: 1e-3}\n")
        assert read("--config", str(tmp_path / "a.yaml")).optimizer.matrix_rate == 1e-3
        assert read("--optimizer.matrix_rate", "1e-3").optimizer.matrix_rate == 1e-3


class TestPresetsAndFiles:
    def test_an_option_wins_over_a_preset_wherever_it_stands(self, presets):
        parser = Parser(ExampleConfig, "seedbed pretrain")
        for arguments in (["--config", "tiny", "--tokens", "mine"], ["--tokens", "mine", "--config", "tiny"]):
            config = parser.read(arguments).config
            assert (config.tokens, config.optimizer.matrix_rate) == ("mine", 1e-3)

    def test_later_files_lie_over_earlier_ones(self, presets, tmp_path):
        (tmp_path / "over.yaml").write_text("depth: 9\noptimizer:\n  name: adamw\n")
        config = Parser(ExampleConfig).read(["--config", "tiny", "--config", str(tmp_path / "over.yaml")]).config
        assert (config.depth, config.optimizer.name, config.optimizer.matrix_rate) == (9, "adamw", 1e-3)

    def test_presets_are_listed_with_command_and_purpose(self, presets):
        assert [(p.name, p.command, p.about) for p in list_presets()] == [
            ("data/books", "prepare", "books"),
            ("small", "tokenize", "a small one"),
            ("tiny", "pretrain", "a tiny one"),
        ]
        assert find_preset("data/books") == presets / "data" / "books.yaml"

    def test_a_preset_of_another_command_is_refused(self, presets):
        with pytest.raises(ConfigError, match="preset small is for seedbed tokenize, not for seedbed pretrain"):
            Parser(ExampleConfig, "seedbed pretrain").read(["--config", "small"])

    def test_an_unknown_preset_names_the_nearest(self, presets):
        assert "no preset and no file named 'tyny'; did you mean tiny?" in mistake("--config", "tyny")

    def test_an_empty_file_changes_nothing(self, tmp_path):
        (tmp_path / "empty.yaml").write_text("# nothing\n")
        assert read("--config", str(tmp_path / "empty.yaml")) == read()

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (
                b"optimizer:\n  matrix_rat: 1\n",
                "line 2: unknown key optimizer.matrix_rat; did you mean optimizer.matrix_rate",
            ),
            (b"tokens: a\ntokens: b\n", "line 2: tokens is given twice"),
            (b"optimizer: 5\n", "line 1: optimizer must be a group of keys"),
            (b"- a\n", "line 1: a config must be a group of keys"),
            (b"tokens: [1\n", "not YAML"),
            (b"\x00\x01", "is not YAML"),
            (b"tokens: \xff\n", "is not text: wrong UTF-8 at byte 8"),
            (b"tokens: T\noptimizer:\n  matrix_rate: hello\n", "optimizer.matrix_rate must be a number, got 'hello' ("),
            (b"tokens: 5\n", "tokens must be text, got 5"),
            (b"tokens: T\ndepth: 1.5\n", "depth must be a whole number or null, got 1.5"),
            (b"tokens: T\ndepth: true\n", "depth must be a whole number or null, got true"),
            (b"[" * 3000, "a b.yaml is nested more than 32 deep"),
            (b"stop: " + b"[" * 40 + b"]" * 40, "line 1: nested more than 32 deep"),
            (b"stop: &a [*a]\n", "line 1: nested more than 32 deep, or an alias inside of what it stands for"),
            (b"optimizer: &a {schedule: *a}\n", "line 1: nested more than 32 deep"),
            (BILLION_LAUGHS, "a b.yaml holds more than 10,000 values"),
            (
                b"optimizer.name: adamw\noptimizer:\n  name: muon\n",
                "line 2: optimizer cannot stand beside optimizer.name",
            ),
            (
                b"optimizer:\n  name: muon\noptimizer.name: adamw\n",
                "line 3: optimizer.name is given twice, first as optimizer.name in line 2",
            ),
            (
                b"optimizer: {name: muon}\noptimizer.betas: [0, 0]\n",
                "line 2: optimizer.betas cannot stand beside optimizer",
            ),
            (b"optimizer.betas: [0, 0]\noptimizer: {name: muon}\n", "beside optimizer.betas in line 1"),
            (b'tokens: "a\\0b"\n', "line 1: a value holds a NUL character"),
            (b'tokens: "\\ud800"\n', "line 1: a value holds bytes or half characters"),
            (b"tokens: T\ndepth: " + b"9" * 5000, "(5,000 characters) cannot be read as !!int"),
            (b"tokens: T\ndepth: 0x" + b"9" * 500, "(502 characters) cannot be read as !!int"),
            (b"tokens: T\ndepth: !!int x\n", "line 2: 'x' cannot be read as !!int"),
            (b"tokens: T\ndepth: !!set {a, b}\n", "line 2: !!set is no tag of a config"),
            (b"tokens: T\n? [a, b]\n: c\n", "line 2: a key must be a word"),
            (b"tokens: T\nplace: ''\n", "place must be a path or null, got ''"),
        ],
    )
    def test_a_broken_file_is_told_in_one_line(self, tmp_path, content, said):
        (tmp_path / "a b.yaml").write_bytes(content)
        assert said in mistake("--config", str(tmp_path / "a b.yaml"))

    @pytest.mark.parametrize(
        ("line", "key", "value"),
        [
            *((f"compiled: {word}", "compiled", "off") for word in ("off", "'off'", "Off", "false", "no", "0")),
            *((f"compiled: {word}", "compiled", "on") for word in ("on", "true", "1")),
            ("compiled: auto", "compiled", "auto"),
            ("share: off", "share", False),  # a truth value stays one
            ("prompt: 'off'", "prompt", "off"),
            ("track: wandb", "track", ["wandb"]),
            ("track: [wandb, mlflow]", "track", ["wandb", "mlflow"]),
            ("stop: ha, ha", "stop", ["ha, ha"]),
            ("sizes: 3", "sizes", [3]),
            ("prompt: ä 語 " + "very " * 40 + "long", "prompt", "ä 語 " + "very " * 40 + "long"),
            ('prompt: |\n  two\n  "lines"\n', "prompt", 'two\n"lines"\n'),
        ],
    )
    def test_a_value_of_a_file_is_taken_as_its_key_means_it(self, tmp_path, line, key, value):
        (tmp_path / "a.yaml").write_text(line, encoding="utf-8")
        assert getattr(read("--config", str(tmp_path / "a.yaml")), key) == value

    def test_dotted_keys_stand_beside_one_another_and_inside_groups(self, tmp_path):
        text = "tokens: T\noptimizer.name: adamw\noptimizer.schedule: {warmup: 3}\nteacher:\n  schedule.warmup: 4\n"
        (tmp_path / "a.yaml").write_text(text)
        config = read("--config", str(tmp_path / "a.yaml"))
        assert (config.optimizer.name, config.optimizer.schedule.warmup, config.teacher.schedule.warmup) == (
            "adamw",
            3,
            4,
        )

    def test_keys_of_a_list_of_groups_are_checked_where_they_stand(self, tmp_path):
        (tmp_path / "a.yaml").write_text("tokens: t\nparts:\n  - path: a\n  - path: b\n    wight: 2\n")
        assert "a.yaml, line 5: unknown key parts[1].wight; did you mean weight?" in mistake(
            "--config", str(tmp_path / "a.yaml")
        )
        (tmp_path / "b.yaml").write_text("tokens: t\nparts:\n  - path: a\n  - weight: 2\n")
        assert "b.yaml, line 4: parts[1].path is required: Folder." in mistake("--config", str(tmp_path / "b.yaml"))
        (tmp_path / "c.yaml").write_text("tokens: t\nparts:\n  - &p {path: a, weight: 3}\n  - {<<: *p, path: b}\n")
        parts = read("--config", str(tmp_path / "c.yaml")).parts
        assert parts == [PartConfig(path="a", weight=3), PartConfig(path="b", weight=3)]

    def test_what_stands_beside_a_merge_wins_over_it(self, tmp_path):
        (tmp_path / "a.yaml").write_text("optimizer: &o {name: adamw}\nteacher: {<<: *o, name: muon, matrix_rate: 7}\n")
        assert read("--config", str(tmp_path / "a.yaml")).teacher == OptimizerConfig(matrix_rate=7)

    def test_a_folder_is_not_a_config(self, tmp_path):
        assert "is a folder" in mistake("--config", str(tmp_path))


class TestMistakes:
    @pytest.mark.parametrize(
        ("theirs", "said", "unit"),
        [
            (
                "--gradient_accumulation_steps=4",
                "here it is --train.micro_batch, in another unit",
                "train.batch 64 of one device, accumulated 4 times, is train.micro_batch 16",
            ),
            ("--per_device_train_batch_size=8", "here it is --train.micro_batch", None),
            (
                "--schedule.warmup_steps=10",
                "here it is --schedule.warmup, in another unit",
                "10 of 1,000 steps are schedule.warmup 0.01",
            ),
            ("--warmup_ratio=0.1", "here it is --schedule.warmup", None),
            ("--dtype=bfloat16", "here it is --train.precision", None),
            ("--train.bf16=true", "here it is --train.precision bf16", None),
            ("--wandb_log=True", "here it is --track wandb", None),
        ],
    )
    def test_a_key_of_another_tool_is_told_ours_and_how_its_number_follows(self, theirs, said, unit):
        with pytest.raises(ConfigError) as caught:
            from_arguments(PretrainConfig, ["--data.tokens=t", "--out=o", theirs])
        assert said in caught.value.problem
        assert unit in caught.value.fix if unit else (caught.value.problem.endswith(said) and not caught.value.fix)

    @pytest.mark.parametrize(
        ("config", "theirs", "said"),
        [
            (GrpoConfig, "--epsilon=0.2", "here it is --clip_low or --clip_high"),
            (GrpoConfig, "--num_iterations=2", "here it is --passes or --train.steps"),
            (GrpoConfig, "--beta=0.04", "here it is --kl"),
            (GrpoConfig, "--reward_funcs=f", "Functions of yours: --own_rewards FILE --rewards '{\"NAME\": 1}'."),
            (PpoConfig, "--cliprange=0.2", "here it is --clip"),
            (PpoConfig, "--target_kl=6", "here it is --kl_target"),
            (DirectConfig, "--rpo_alpha=1", "here it is --likelihood"),
            (DirectConfig, "--ref_model=m", "The reference is the model as the run begins."),
            (DirectConfig, "--label_smoothing=0.1", "Write --loss conservative --flipped 0.1, or --loss robust."),
            (DirectConfig, "--lora_alpha=16", "here it is --lora.alpha"),
            (DirectConfig, "--lora.r=16", "here it is --lora.rank"),
            (DirectConfig, "--loss=cdpo", "here it is conservative"),
            (FinetuneConfig, "--load_in_4bit=true", "here it is --method qlora"),
            (FinetuneConfig, "--packing=true", "Conversations are always packed, and none sees another."),
            (MergeConfig, "--base_model=m", "here it is --base"),
            (MergeConfig, "--method=passthrough", "here it is stack"),
        ],
    )
    def test_a_key_of_those_who_tune_and_merge_is_told_ours(self, config, theirs, said):
        with pytest.raises(ConfigError) as caught:
            from_arguments(config, [theirs])
        assert str(caught.value).endswith(said)

    def test_every_key_that_is_told_is_one_of_ours(self):
        ours = {path.rstrip("_") for name in cli.COMMANDS for path in cli.parser(name).options}
        told = {key.partition(" ")[0] for keys in ELSEWHERE.values() for key in keys}
        assert told | {key for key, _ in DIFFERENT.values()} <= ours

    @pytest.mark.parametrize(("word", "ours"), [("bfloat16", "bf16"), ("float16", "fp16"), ("float32", "fp32")])
    def test_a_precision_by_its_long_name_is_told_ours(self, word, ours):
        with pytest.raises(ConfigError, match=f"got '{word}'; here it is {ours}$"):
            from_arguments(PretrainConfig, ["--data.tokens=t", "--out=o", f"--train.precision={word}"])

    @pytest.mark.parametrize("word", ["bpe", "BPE", "byte-level-bpe", "tiktoken"])
    def test_a_value_by_another_tools_word_is_told_ours(self, word):
        with pytest.raises(ConfigError, match=f"got '{word}'; here it is byte_pair$"):
            from_arguments(TokenizerConfig, ["--corpus=c", "--out=o", f"--kind={word}"])
        assert "here it is" not in mistake("--optimizer.name", word)  # a word for the value of another key

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "tokens is required: Folder that tokenize wrote."),
            (["--optimizer.matrix_rate", "-1"], "optimizer.matrix_rate must be > 0, got -1.0"),
            (["--optimizer.matrix_rate", ".nan"], "optimizer.matrix_rate must be > 0, got nan"),
            (["--optimizer.matrix_rate", ".inf"], "optimizer.matrix_rate must be > 0, got inf"),
            (["--optimizer.matrix_rate", "x"], "optimizer.matrix_rate must be a number, got 'x'"),
            (["--optimizer.name", "sgd"], "optimizer.name must be one of adamw, muon, got 'sgd'"),
            (["--optimizer.schedule.warmup", "-4"], "optimizer.schedule.warmup must be at least 0, got -4"),
            (["--optimizer.schedule.warmup", "null"], "optimizer.schedule.warmup must be a whole number, got null"),
            (["--optimizer.schedule.warmup", "13"], "optimizer.schedule: the number 13 brings bad luck"),
            (["--teacher.schedule.warmup", "-4"], "teacher.schedule.warmup must be at least 0, got -4"),
            (["--teacher.matrix_rate", "x"], "teacher.matrix_rate must be a number, got 'x'"),
            (["--parts", "[{path: a, weight: -1}]"], "parts[0].weight must be > 0, got -1.0"),
            (
                ["--parts", "[{path: a}, {path: b, wight: 1}]"],
                "--parts: unknown key parts[1].wight; did you mean weight",
            ),
            (["--parts+", "{path: b, wight: 1}"], "--parts+: unknown key parts[0].wight; did you mean weight"),
            (["--parts", "[{path: a, path: b}]"], "--parts: parts[0].path is given twice"),
            (["--parts", "[{weight: 1}]"], "--parts: parts[0].path is required: Folder."),
            (
                ["--parts", "[{path: a, weight: x}]"],
                "parts must be a list, each a group of keys (path, weight), got 'x'",
            ),
            (["--parts", "3"], "parts must be a list, each a group of keys (path, weight), got 3"),
            (["--optimizr.name", "x"], "unknown option --optimizr.name; did you mean --optimizer.name"),
            (["--matrix-rate", "1"], "unknown option --matrix-rate; did you mean --optimizer.matrix_rate"),
            (["--tok", "x"], "unknown option --tok"),
            (["--optimizer", "x"], "--optimizer is a group of keys: --optimizer.name"),
            (["--depth"], "--depth needs a value: a whole number or null"),
            (["--depth", "--share"], "--depth needs a value"),
            (["--share", "maybe"], "share must be true or false, got 'maybe'"),
            (["--sizes", "1,x"], "sizes must be a list, each a whole number"),
            (["--optimizer.betas", "1,2,3"], "optimizer.betas must be a list of 2 values"),
            (["--compiled", "maybe"], "compiled must be one of auto, on, off, got 'maybe'"),
            (["--track", "wandbb"], "track: 'wandbb' is none of wandb, mlflow; did you mean wandb?"),
            (["--track", "mlflow,comet"], "track: 'comet' is none of wandb, mlflow"),
            (["--track", "null"], "track must be a list, each one of wandb, mlflow, got null"),
            (["--colour", "GREEN"], "colour must be one of RED, BLUE, got 'GREEN'"),
            (["stray"], "unexpected 'stray'"),
            (["--prompt", "x", "--depth", "y" * 5000], "(5,000 characters)"),
            (["--depth", "9" * 5000], "depth must be a whole number or null, got 9999"),
            (["--optimizer.matrix_rate", "0x" + "9" * 5000], "optimizer.matrix_rate must be a number, got '0x9999"),
            (["--sizes", "[0x" + "9" * 5000 + "]", "--optimizer.betas", "0x" + "9" * 5000 + ",1"], "value"),
            (["--place", ""], "place must be a path or null, got ''"),
            (["--place", "caf\udce9"], "place holds bytes or half characters that UTF-8 cannot hold"),
            (["--prompt", "a\0b"], "prompt holds a NUL character"),
            (["--stop", "a\0b"], "stop[0] holds a NUL character"),
            (["--config", ""], "there is no preset and no file named ''"),
            (["--config", "x" * 5000], "(5,000 characters)"),
        ],
    )
    def test_a_mistake_is_one_line(self, arguments, said):
        tokens = ["--tokens", "T"] if arguments else []
        assert said in mistake(*tokens, *arguments)

    @given(
        st.lists(
            st.sampled_from(["--tokens", "--depth", "--optimizer", "--stop+", "--share=x", "null", "[", "{a: b}", "x"])
        )
    )
    def test_any_words_give_a_config_or_a_config_error(self, arguments):
        try:
            config = from_arguments(ExampleConfig, arguments)
        except ConfigError as error:
            assert "\n" not in error.problem
        else:
            assert isinstance(config, ExampleConfig)


class TestRules:
    def test_none_is_left_out_and_passes(self):
        @dataclass
        class Some:
            a: float | None = None

        positive(Some(), "a")
        at_least(Some(), 1, "a")
        between(Some(), 0, 1, "a")

    @pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
    def test_between_includes_its_ends_and_nothing_more(self, value):
        between(PartConfig(path="", weight=1), 0, 1, "weight")
        with pytest.raises(ConfigError, match="warmup must be between 0 and 1"):
            between(type("C", (), {"warmup": value}), 0, 1, "warmup")


class TestWriting:
    def test_print_config_reads_back_as_the_same_config(self, tmp_path):
        arguments = [
            "--tokens",
            "T: #",
            "--stop",
            "a,null",
            "--optimizer.matrix_rate",
            "1e-9",
            "--teacher",
            "{}",
            "--prompt",
            "x\ny",
        ]
        text = Parser(ExampleConfig).read([*arguments, "--print_config"]).text
        (tmp_path / "c.yaml").write_text(text)
        assert load_config(tmp_path / "c.yaml", ExampleConfig) == from_arguments(ExampleConfig, arguments)

    def test_print_config_checks_what_it_prints(self):
        assert "must be > 0" in mistake("--tokens", "T", "--optimizer.matrix_rate", "-1", "--print_config")

    def test_print_config_marks_what_is_required(self):
        assert "# tokens: required" in Parser(ExampleConfig).read(["--print_config"]).text

    @settings(max_examples=30)
    @given(
        st.builds(
            ExampleConfig,
            tokens=st.text(alphabet=st.characters(exclude_categories=["C"])),
            depth=st.none() | st.integers(),
            stop=st.lists(st.text(alphabet=st.characters(exclude_categories=["C"]))),
            share=st.booleans(),
            colour=st.sampled_from(Colour),
            teacher=st.none() | st.just(OptimizerConfig()),
            parts=st.lists(st.builds(PartConfig, path=st.just("p"), weight=st.floats(0.001, 1e9)), max_size=2),
        )
    )
    def test_a_saved_config_loads_as_an_equal_one(self, tmp_path_factory, config):
        path = tmp_path_factory.mktemp("c") / "config.yaml"
        save_config(path, config)
        assert load_config(path, ExampleConfig) == config

    def test_to_dict_is_plain(self):
        assert to_dict(read("--place", "/x", "--colour", "BLUE"))["place"] == "/x"
        assert to_dict(read("--colour", "BLUE"))["colour"] == "BLUE"
        assert to_dict(read())["optimizer"]["betas"] == [0.9, 0.95]

    def test_help_explains_each_field_with_its_default(self):
        text = " ".join(Parser(ExampleConfig, "seedbed example").read(["--help"]).text.split())
        assert "--optimizer.matrix_rate" in text
        assert "Peak rate, 100% of it. (type: float, default: 0.5)" in text
        assert "Folder that tokenize wrote. (required, type: str)" in text
        assert "(type: Path | null, default: null)" in text
        assert "<class" not in text


class TestPositionals:
    def test_bare_words_fill_fields_in_order(self):
        assert Parser(ExampleConfig, positionals=("tokens", "prompt")).read(["a", "b"]).config.prompt == "b"

    def test_the_last_takes_the_rest_if_it_is_a_list(self):
        config = Parser(ExampleConfig, positionals=("tokens", "stop")).read(["a", "b", "--share", "true", "c"]).config
        assert (config.tokens, config.stop) == ("a", ["b", "c"])


@dataclass(frozen=True, kw_only=True)
class OuterConfig:
    """A group whose own key must be given."""

    part: PartConfig
    """The part."""


class TestRequiredInsideAGroup:
    def test_its_full_key_is_named(self):
        with pytest.raises(ConfigError, match=r"^part\.path is required: Folder\."):
            from_arguments(OuterConfig, [])

    def test_it_is_marked_in_the_printed_config(self):
        assert Parser(OuterConfig).read(["--print_config"]).text == "part:\n  # path: required\n  weight: 1.0\n"

    def test_it_can_be_given(self):
        assert from_arguments(OuterConfig, ["--part.path", "x"]) == OuterConfig(part=PartConfig(path="x"))
