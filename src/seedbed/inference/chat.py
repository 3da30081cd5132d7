"""`seedbed chat`: talk to a model in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from seedbed.errors import DataError
from seedbed.inference.config import ChatConfig
from seedbed.inference.engine import Engine
from seedbed.inference.generate import say
from seedbed.inference.grammars import read_files
from seedbed.inference.opening import open_engine
from seedbed.tokenizers.chat import encode_prompt, find_template

GREETING = "Type a message and press Enter. /new begins again, /exit or Ctrl-D ends."


def chat(config: ChatConfig) -> dict[str, Any]:
    """Reads messages from standard input until it ends, and streams the replies. Returns {"messages": […]}.

    When the context is full the model is told the newest messages only; what is returned holds all.
    """
    config = read_files(config)
    engine, adapter = open_engine(config)
    engine.grammars.check(config)
    if config.template is not None:
        engine.tokenizer = engine.tokenizer.with_template(find_template(config.template))
    opening = [] if config.system is None else [{"role": "system", "content": config.system}]
    messages = list(opening)
    forgets = False
    if sys.stdin.isatty():
        print(GREETING)
    for text in _lines():
        if text == "/exit":
            break
        if text == "/new":
            messages = list(opening)
            forgets = False
            continue
        messages.append({"role": "user", "content": text})
        try:
            said = recent(engine, messages, config.max_tokens)
            prompt = encode_prompt(engine.tokenizer, said)
            engine.check(prompt, config)
            if len(said) < len(messages) and not forgets:
                context = engine.model.config.context
                print(f"(The model's context of {context:,} tokens is full: it forgets the oldest messages.)")
                forgets = True
            if reply := say(engine, prompt, config, adapter).text:
                messages.append({"role": "assistant", "content": reply})
            else:  # a conversation holds no empty reply: the next question stands in this one's place
                messages.pop()
        except DataError as error:  # a message longer than the context: the person goes on without it
            print(f"{error.problem}. Say it shorter.")
            messages.pop()
    return {"messages": messages}


def recent(engine: Engine, messages: list[dict[str, str]], max_tokens: int) -> list[dict[str, str]]:
    """A conversation that ends with a question, without as many of its oldest turns as it takes for the context to hold
    the rest and a reply of `max_tokens`, or a quarter of the context if that is less. A system message stays."""
    context = engine.model.config.context
    room = min(max_tokens, context // 4)
    opening = [message for message in messages[:1] if message["role"] == "system"]
    turns = messages[len(opening) :]
    while len(turns) > 1 and len(encode_prompt(engine.tokenizer, [*opening, *turns])) + room > context:
        turns = turns[2:]
    return [*opening, *turns]


def _lines() -> Iterator[str]:
    """Messages typed in, or lines of a file or pipe."""
    while True:
        try:
            text = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if text:
            yield text
