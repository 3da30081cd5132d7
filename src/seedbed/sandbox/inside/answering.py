"""Runs a program, then calls its functions as its tests ask: this is the program's side.

The program shares this process and may do with it what it likes. All it can reach is the answers, which are its own.
"""

import builtins
import os
import sys

from plain import decode, encode, receive, send


def answer():
    asked, answers = (os.fdopen(int(number), mode) for number, mode in zip(sys.argv[1:], ("rb", "wb"), strict=True))
    module = type(sys)("__main__")
    sys.modules["__main__"], sys.argv[:] = module, ["main.py"]
    with open("main.py", "rb") as file:
        exec(compile(file.read(), "main.py", "exec"), module.__dict__)
    send(answers, "ready")
    while True:
        try:
            name, arguments, options = decode(receive(asked))
        except EOFError:
            return
        try:
            result = getattr(module, name)(*arguments, **options)
            reply = ["returned", encode(result)]
        except Exception as error:
            kind = next(kind for kind in type(error).__mro__ if kind.__module__ == builtins.__name__)
            text = str(error) if kind is type(error) else f"{type(error).__name__}: {error}"
            reply = ["raised", kind.__name__, text]
        send(answers, reply)


if __name__ == "__main__":
    answer()
