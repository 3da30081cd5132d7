"""How a model is stored in fewer bits. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seedbed.configuration import at_least, between
from seedbed.errors import ConfigError
from seedbed.model.linears.storage import LARGEST_GROUP


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """Writes a model in fewer bits, as a folder that loads wherever a model does, and tells what that cost."""

    model: Path
    """Model folder (ours or one of transformers), run or checkpoint."""

    out: Path
    """Model folder to write."""

    scheme: Literal["int8", "int4", "nf4", "fp16", "bf16"] = "int8"
    """int8: whole numbers of 8 bits, a scale for each row, in layers and tables. int4: of 4 bits, a scale for each
    group of a row. nf4: normal floats of 4 bits, which QLoRA takes. fp16, bf16: all numbers at half the precision."""

    group: int = 64
    """Inputs of int4 that share a scale: fewer are nearer to the model, more make a smaller file."""

    tables: Literal["int4", "int8"] = "int4"
    """What int4 stores embeddings in. With int8, which is nearer, transformers loads the folder; it looks up
    nothing in four bits."""

    method: Literal["nearest", "gptq", "awq"] | None = None
    """How whole numbers are found. nearest: each by itself. On the calibration text, gptq: one column after the other,
    those to come making good what was lost (Frantar et al. 2022); awq: columns that meet large inputs are made larger
    before they are rounded (Lin et al. 2023; int4 alone). Left out: gptq for int4 with calibration, else nearest."""

    activations: Literal["int8", "stored"] = "int8"
    """What the layers of int8 are multiplied with: int8 rounds it too, which is faster (W8A8); stored leaves it as it
    is (W8A16)."""

    exclude: list[str] = field(default_factory=list)
    """Layers that stay as they are, by their names in the report, with * for anything: [head, "blocks.0.*"]."""

    calibration: Path | None = None
    """Sample text that goes through the model, for gptq and awq, and so that the report tells how far off the outputs
    of each layer are: text (any file that `prepare` reads), or a tokens folder, of which the training part."""

    calibration_tokens: int = 32_768
    """Tokens of it that are read, from its beginning."""

    text: Path | None = None
    """What perplexity is measured on, before and after: text as above, or a tokens folder, of which the validation
    part. Left out: it is not measured."""

    text_tokens: int = 65_536
    """Tokens of it that are read, from its beginning."""

    def __post_init__(self) -> None:
        at_least(self, 2, "text_tokens", "calibration_tokens")
        between(self, 8, LARGEST_GROUP, "group")
        if self.method in ("gptq", "awq") and self.calibration is None:
            raise ConfigError(f"method {self.method} needs sample text", "Give --calibration FILE or TOKENS.")
        if self.method == "awq" and self.scheme == "int8":
            raise ConfigError("method awq is for int4", "Give --method gptq, or leave it out.")
        if self.text is not None and self.text == self.calibration and not self.text.is_dir():
            raise ConfigError("text is the calibration text, which the model is made to fit", "Give one held out.")

    def unused(self) -> dict[str, str]:
        """Options of other schemes, and of a text that is not given."""
        halves = self.scheme in ("fp16", "bf16")
        unused = {"text_tokens": "without text"} if self.text is None else {}
        unused |= {"calibration_tokens": "without calibration"} if self.calibration is None else {}
        unused |= {"activations": "without scheme int8"} if self.scheme != "int8" else {}
        unused |= dict.fromkeys(("group", "tables"), "without scheme int4") if self.scheme != "int4" else {}
        unused |= {"method": "with scheme nf4, which is always the nearest"} if self.scheme == "nf4" else {}
        if halves:
            unused |= dict.fromkeys(
                ("exclude", "calibration", "method"), f"with scheme {self.scheme}: every number is rounded"
            )
        return unused
