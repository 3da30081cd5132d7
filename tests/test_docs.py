"""What README and docs/ print is real: commands, keys, targets, links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from seedbed.cli import parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ENDS = {"|", "||", "&&", ";", ">", ">>", "2>", "&", ")"}


def commands(text: str) -> list[list[str]]:
    """The words of each command line of seedbed in code blocks and inline code; continued lines are joined."""
    code = re.findall(r"```[^\n]*\n(.*?)```", text, re.DOTALL)
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = [line for block in code for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:\$ )?seedbed [^`]+)`", outside)
    found = []
    for line in lines:
        line = re.sub(r"^\s*\$ ", "", line).strip()
        line = re.sub(r"^(?:\w+=\S+ )*(?:\.venv/bin/)?seedbed ", "seedbed ", line)
        if line.startswith("seedbed ") and not line.startswith("seedbed: "):
            words = shlex.split(line, comments=True)[1:]
            end = next((number for number, word in enumerate(words) if word in ENDS), len(words))
            found.append([word for word in words[:end] if word != "…"])
    return found


def test_commands_are_found_where_they_stand():
    text = (
        "`seedbed doctor`\n```bash\n$ seedbed config show tiny | head  # look\nseedbed prepare \\\n  --out x\nls\n```\n"
    )
    assert commands(text) == [["config", "show", "tiny"], ["prepare", "--out", "x"], ["doctor"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestPage:
    def test_each_command_and_each_of_its_keys_exist(self, page):
        for words in commands(page.read_text(encoding="utf-8")):
            if words[0] in ("--help", "--version") or re.fullmatch(r"[A-Z]+", words[0]):
                continue
            options = [word for word in words[1:] if not word.startswith("[")]
            reader = parser(words[0])
            # A config file of the reader's own is a placeholder: only presets can be checked.
            kept, skip = [], False
            for word, following in zip(options, [*options[1:], ""], strict=False):
                if skip:
                    skip = False
                elif word == "--config" and (following.isupper() or following.endswith((".yaml", ".yml"))):
                    skip = True
                else:
                    kept.append(word)
            reader.check(kept)

    def test_each_make_target_exists(self, page):
        targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[1].split()
        named = re.findall(r"^(?:\$ )?make ([a-z]+)", page.read_text(encoding="utf-8"), re.M)
        named += re.findall(r"`make ([a-z]+)`", page.read_text(encoding="utf-8"))
        assert [target for target in named if target not in targets] == []

    def test_each_relative_link_leads_somewhere(self, page):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href|srcset)="([^"]+)"', text)
        relative = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
        assert [link for link in relative if not (page.parent / link).exists()] == []
