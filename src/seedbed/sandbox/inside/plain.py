"""Plain data as a line of text, between a program and its tests, neither of which can trust the other's bytes.

Only None, booleans, numbers, text, bytes and lists, tuples, sets and dicts of them cross, each as exactly that: no
class of the program's, whose `==` could say anything, ever stands where its tests look.
"""

import json
import struct
from collections.abc import Callable

WORD = struct.Struct(">I")
LONGEST = 2**26


def encode(value):
    """Nested lists, each with its kind first. TypeError for what is not plain data."""
    if value is None or value is True or value is False:
        return value
    for kind, pack in PACKED.items():
        if isinstance(value, kind):
            return [kind.__name__, *pack(value)]
    raise TypeError(f"{type(value).__name__} is not plain data: None, numbers, text, bytes, lists, tuples, sets, dicts")


PACKED: dict[type, Callable] = {
    int: lambda value: [hex(value)],
    float: lambda value: [float.hex(value)],
    complex: lambda value: [float.hex(value.real), float.hex(value.imag)],
    str: lambda value: [value],
    bytes: lambda value: [value.hex()],
    list: lambda value: map(encode, value),
    tuple: lambda value: map(encode, value),
    set: lambda value: map(encode, value),
    frozenset: lambda value: map(encode, value),
    dict: lambda value: ([encode(key), encode(one)] for key, one in value.items()),
}

UNPACKED: dict[str, Callable] = {
    "int": lambda text: int(text, 16),
    "float": lambda text: float.fromhex(text),
    "complex": lambda real, imaginary: complex(float.fromhex(real), float.fromhex(imaginary)),
    "str": lambda text: str(text),
    "bytes": lambda text: bytes.fromhex(text),
    "list": lambda *values: list(map(decode, values)),
    "tuple": lambda *values: tuple(map(decode, values)),
    "set": lambda *values: set(map(decode, values)),
    "frozenset": lambda *values: frozenset(map(decode, values)),
    "dict": lambda *pairs: {decode(key): decode(value) for key, value in pairs},
}


def decode(value):
    """What was encoded. Whatever the text, only plain data comes of it, or an exception."""
    if value is None or value is True or value is False:
        return value
    kind, *rest = value
    return UNPACKED[kind](*rest)


def send(file, message):
    """Writes a message: its length, and it as JSON."""
    data = json.dumps(message).encode("ascii")
    file.write(WORD.pack(len(data)) + data)
    file.flush()


def receive(file):
    """Reads a message. EOFError if there is none to come, ValueError if it is too long."""
    head = file.read(WORD.size)
    if len(head) < WORD.size:
        raise EOFError
    (length,) = WORD.unpack(head)
    if length > LONGEST:
        raise ValueError(f"a message of {length:,} bytes")
    data = file.read(length)
    if len(data) < length:
        raise EOFError
    return json.loads(data)
