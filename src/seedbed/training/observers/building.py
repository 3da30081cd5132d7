"""From the settings of a run to what watches it."""

from __future__ import annotations

from seedbed.errors import ConfigError
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.config import StageConfig
from seedbed.training.observers.observer import Observer
from seedbed.training.parallel.world import World
from seedbed.training.settings import plain

# Each observer is imported where it is asked for: a run that nobody watches pays for none.


def build_observers(config: StageConfig, tokenizer: Tokenizer) -> list[Observer]:
    """Everything that the settings ask for. ConfigError when a part of it is missing, such as a tracker's package."""
    if World.here().size > 1 and (config.train.parallel == "fsdp" or config.train.tensor_parallel > 1):
        for name in ("statistics", "probes", "samples"):
            if getattr(config, name).every is not None:
                raise ConfigError(f"{name}.every needs a whole model: no fsdp, no tensor_parallel")
    observers: list[Observer] = []
    if config.track:  # first, so that the trackers begin before all others and end after them: they hear of everything
        from seedbed.training.trackers.trackers import Trackers, require

        require(config.track)
        every = config.statistics.every if config.statistics.histograms else None
        observers.append(Trackers(config.track, plain(config), every))
    if config.statistics.every is not None:
        from seedbed.training.statistics.statistics import Statistics

        observers.append(Statistics(config.statistics))
    if config.probes.every is not None:
        from seedbed.training.observers.probes import Probe, find_function

        for place in config.probes.functions:
            name = place.partition(":")[2]
            observers.append(Probe(name, config.probes.every, tokenizer, find_function(place)))
    if config.samples.every is not None:
        from seedbed.training.observers.samples import Samples

        observers.append(Samples(config.samples, tokenizer))
    if config.profile.steps is not None:
        from seedbed.training.observers.profiler import Profiler

        observers.append(Profiler(config.profile))
    if config.alerts.wanted:  # last, because they may end the run: the others have seen the step by then
        from seedbed.training.observers.alerts import Alerts

        observers.append(Alerts(config.alerts))
    return observers
