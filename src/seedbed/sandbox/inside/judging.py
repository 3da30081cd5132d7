"""Runs the tests of a program that is in another box: this is the tests' side.

Where the tests name a function of the program they call a stand-in, which asks the program's box and brings back plain
data. The program has neither the tests nor anything of this process.
"""

import builtins
import contextlib
import os
import sys

from plain import decode, encode, receive, send

PROGRAM_LOST = 70
"""Exit code where the program ended or made no sense: no `except` of the tests can take it for an answer."""
SILENT = (StopIteration, StopAsyncIteration)
"""Exceptions that would end a loop of the tests without a word; from a program they are errors like others."""


class Function:
    """Stands for a function of the program."""

    def __init__(self, name, ask, answers):
        self.name, self.ask, self.answers = name, ask, answers

    def __call__(self, *arguments, **options):
        question = encode((self.name, arguments, options))
        try:
            send(self.ask, question)
            outcome, *rest = receive(self.answers)
            if outcome == "returned":
                (result,) = map(decode, rest)
            else:
                kind, text = map(str, rest)
        except Exception as error:
            lose(error)
        if outcome == "returned":
            return result
        raise exception(kind, text)


def lose(error):
    print(f"the program is lost: {type(error).__name__} {error}", file=sys.stderr, flush=True)
    os._exit(PROGRAM_LOST)


def exception(kind, text):
    """One of Python's own, by its name."""
    known = getattr(builtins, kind, None)
    if isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, SILENT):
        with contextlib.suppress(TypeError):  # UnicodeDecodeError wants more than a text
            return known(text)
    return RuntimeError(f"{kind}: {text}")


def judge():
    ask, answers = os.fdopen(int(sys.argv[1]), "wb"), os.fdopen(int(sys.argv[2]), "rb")
    names = sys.argv[3:]
    with open("main.py", "rb") as file:
        tests = compile(file.read(), "tests.py", "exec")
    try:
        if receive(answers) != "ready":
            raise ValueError("it spoke before it was ready")
    except Exception as error:
        lose(error)
    module = type(sys)("__main__")
    module.__dict__.update((name, Function(name, ask, answers)) for name in names)
    sys.modules["__main__"], sys.argv[:] = module, ["tests.py"]
    exec(tests, module.__dict__)


if __name__ == "__main__":
    judge()
