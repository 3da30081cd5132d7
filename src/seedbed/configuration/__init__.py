"""Configuration: typed frozen dataclasses, read from presets, files and the command line. No torch here.

A stage describes itself in a dataclass whose fields each carry a docstring. `Parser` turns that class into options
with dotted names, lays presets and files under them, and answers every mistake with one line that names the key, the
value and what is allowed. The reading itself is jsonargparse's; what is added is the checking of keys before it reads,
the building of the dataclasses after it (so that a broken rule of `__post_init__` is told with its key), and the words.
"""

from seedbed.configuration.nodes import read_group
from seedbed.configuration.options import changed, options
from seedbed.configuration.parser import FRAME_OPTIONS, Parser, from_arguments, load_config
from seedbed.configuration.presets import find_preset, list_presets
from seedbed.configuration.rules import at_least, between, positive, whole
from seedbed.configuration.text import save_config, to_dict, to_yaml

__all__ = [
    "FRAME_OPTIONS",
    "Parser",
    "at_least",
    "between",
    "changed",
    "find_preset",
    "from_arguments",
    "list_presets",
    "load_config",
    "options",
    "positive",
    "read_group",
    "save_config",
    "to_dict",
    "to_yaml",
    "whole",
]
