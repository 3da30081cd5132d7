"""The optional parts: what each is made of, and how to bring one that is missing."""

from __future__ import annotations

import shlex
from pathlib import Path

from seedbed.errors import ConfigError

# The modules that stand for each extra: it is installed when all of these can be found.
EXTRAS = {
    "data": ("datasets", "ftfy", "lxml_html_clean", "py3langid", "rensa", "sentencepiece", "trafilatura"),
    "serve": ("fastapi", "uvicorn", "prometheus_client", "limits"),
    "studio": ("gradio",),
    "eval": ("lm_eval", "sacrebleu", "rouge_score"),
    "align": ("jsonschema",),
    "track": ("tensorboard", "wandb", "mlflow", "sqlalchemy", "alembic", "trackio"),
    "export": ("gguf", "onnx", "onnxruntime"),
    "ray": ("ray",),
    "dev": ("pytest", "hypothesis", "jsonschema", "ruff", "mypy", "importlinter", "transformers"),
}
PACKAGE = Path(__file__).resolve().parent


def bring(extra: str | None) -> str:
    """The command that installs an extra, or what seedbed itself needs: from the clone that this is, or the file that
    seedbed was installed from. The name alone would be looked up on PyPI, where it is not ours."""
    clone, part = PACKAGE.parents[1], "" if extra is None else f"[{extra}]"
    if not (clone / "pyproject.toml").is_file():
        return f"pip install {shlex.quote(f'FILE.whl{part}')}, the file that seedbed was installed from"
    place = "." if clone == Path.cwd() else str(clone)
    return f"pip install -e {shlex.quote(f'{place}{part}')}"


def missing(what: str, package: str, extra: str | None = None) -> ConfigError:
    """The error for `what`, a setting, that needs a package which is not installed."""
    return ConfigError(f"{what} needs the package {package}, which is not installed", bring(extra))
