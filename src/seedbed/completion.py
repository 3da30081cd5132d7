"""Completion for bash and zsh: a script with every command, key and countable value written into it.

It is made from the same classes as the parser and starts no Python when a person presses TAB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from seedbed.cli import COMMANDS, parser
from seedbed.configuration import FRAME_OPTIONS, list_presets

SCRIPT = """\
# {shell} completion of seedbed. Keep it: seedbed completion {shell} > FILE; source FILE in your shell's start file.
{zsh}_seedbed_words() {{
  case "$1" in
{cases}
  esac
}}
_seedbed() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" command="${{COMP_WORDS[1]}}" words
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="$(_seedbed_words '')"
  elif [ "${{word#-}}" != "$word" ]; then
    words="$(_seedbed_words "$command")"
  else
    words="$(_seedbed_words "$command $before")"
    [ "${{before#--}}" = "$before" ] && words="$words $(_seedbed_words "$command +")"
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  # A key without counted values, and --config beside its presets, takes a file or folder.
  case "$before" in --*) ;; *) return ;; esac
  if [ -z "$(_seedbed_words "$command $before")" ] || [ "$before" = --config ]; then
    local IFS=$'\\n'
    compopt -o filenames 2>/dev/null
    [ "${{word#-}}" != "$word" ] || COMPREPLY+=($(compgen -f -- "$word"))
  fi
}}
complete {files}-F _seedbed seedbed
"""


@dataclass(frozen=True, kw_only=True)
class CompletionConfig:
    """Print the completion script of a shell: eval "$(seedbed completion bash)"."""

    shell: Literal["bash", "zsh"] = "bash"
    """Whose completion."""


def completion(config: CompletionConfig) -> dict[str, Any]:
    """Print the script; the result carries it too."""
    script = completion_script(config.shell)
    print(script, end="")
    return {"shell": config.shell, "script": script}


def completion_script(shell: str) -> str:
    """The script for one shell. zsh runs the one of bash through its own bashcompinit."""
    cases = {"": [*COMMANDS, "--help", "--version"]}
    presets = list_presets()
    for name, command in COMMANDS.items():
        keys = parser(name).options
        flags = [f"--{path.rstrip('_')}" for path, key in keys.items() if not key.group]
        cases[name] = [*flags, *(f"--{flag}" for flag in FRAME_OPTIONS)]
        cases |= {f"{name} --{path.rstrip('_')}": key.choices for path, key in keys.items() if key.choices}
        cases[f"{name} --config"] = [preset.name for preset in presets if preset.command == name]
        cases[f"{name} +"] = [choice for word in command.positionals for choice in keys[word].choices]
    lines = [f"    '{case}') echo '{' '.join(words)}' ;;" for case, words in cases.items() if words]
    zsh = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    files = "-o filenames " if shell == "zsh" else ""  # bash is told by compopt, only where files are offered
    return SCRIPT.format(shell=shell, zsh=zsh, files=files, cases="\n".join(lines))
