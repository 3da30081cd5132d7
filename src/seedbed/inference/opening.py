"""A model opened to answer, as a command was told."""

from __future__ import annotations

from seedbed.devices import choose_device
from seedbed.inference.config import EngineConfig, OpenConfig
from seedbed.inference.engine import Engine
from seedbed.model.adapters.folder import adds
from seedbed.model.folder import find_model, tell_unfinished


def open_engine(config: OpenConfig, **sizes: int) -> tuple[Engine, str | None]:
    """The engine, and the name of the adapter that requests are to wear, which is that of its folder; None where there
    is none, or it is merged, because it does more than to add. `sizes`: what else EngineConfig says."""
    tell_unfinished(config.model)
    adapters, merge = {}, None
    if config.adapter is not None and adds(find_model(config.adapter)):
        adapters[config.adapter.resolve().name] = config.adapter
    else:
        merge = config.adapter
    engine = Engine.load(
        config.model,
        device=choose_device(config.device),
        weights=config.weights,
        adapters=adapters,
        merge=merge,
        config=EngineConfig(guesses=config.guesses, cache=config.cache, exact=config.exact, **sizes),
        draft=config.draft,
    )
    return engine, next(iter(adapters), None)
