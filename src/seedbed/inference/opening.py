"""A model opened to answer, as a command was told."""

from __future__ import annotations

from seedbed.devices import choose_device
from seedbed.inference.config import EngineConfig, OpenConfig
from seedbed.inference.engine import Engine
from seedbed.model.folder import tell_unfinished


def open_engine(config: OpenConfig, **sizes: int) -> tuple[Engine, str | None]:
    """The engine, and the name of the adapter that requests are to wear, which is that of its folder. `sizes`: what
    else EngineConfig says."""
    tell_unfinished(config.model)
    adapters = {} if config.adapter is None else {config.adapter.resolve().name: config.adapter}
    engine = Engine.load(
        config.model,
        device=choose_device(config.device),
        weights=config.weights,
        adapters=adapters,
        config=EngineConfig(guesses=config.guesses, cache=config.cache, exact=config.exact, **sizes),
        draft=config.draft,
    )
    return engine, next(iter(adapters), None)
