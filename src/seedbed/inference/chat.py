"""`seedbed chat`: talk to a model in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from seedbed.devices import choose_device
from seedbed.errors import DataError
from seedbed.inference.config import ChatConfig
from seedbed.inference.engine import Engine
from seedbed.inference.generate import say
from seedbed.model.folder import load_model
from seedbed.tokenizers.chat import encode_prompt, find_template

GREETING = "Type a message and press Enter. /new begins again, /exit or Ctrl-D ends."


def chat(config: ChatConfig) -> dict[str, Any]:
    """Reads messages from standard input until it ends, and streams the replies. Returns {"messages": […]}."""
    model, tokenizer = load_model(config.model, device=choose_device(config.device))
    if config.template is not None:
        tokenizer = tokenizer.with_template(find_template(config.template))
    engine = Engine(model, tokenizer)
    opening = [] if config.system is None else [{"role": "system", "content": config.system}]
    messages = list(opening)
    if sys.stdin.isatty():
        print(GREETING)
    for text in _lines():
        if text == "/exit":
            break
        if text == "/new":
            messages = list(opening)
            continue
        messages.append({"role": "user", "content": text})
        try:
            if reply := say(engine, encode_prompt(tokenizer, messages), config).text:
                messages.append({"role": "assistant", "content": reply})
            else:  # a conversation holds no empty reply: the next question stands in this one's place
                messages.pop()
        except DataError as error:  # a conversation longer than the context: the person goes on without it
            print(f"{error.problem} /new begins again.")
            messages.pop()
    return {"messages": messages}


def _lines() -> Iterator[str]:
    """Messages typed in, or lines of a file or pipe."""
    while True:
        try:
            text = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if text:
            yield text
