"""Reads arrays out of pickle files without running what a pickle may ask for.

A pickle is a program for a small stack machine; Python's own reader calls whatever the program
names. This one knows the few instructions and the few names that array pickles use (NumPy 1 and 2,
JAX 0.2 to today, ml_dtypes' bfloat16) and refuses all others. What the names stand for is never
called either: they make drafts, which record shape, dtype and bytes, and become one NumPy array at
the end, once the shape has been checked against the bytes that are there. So nothing in the file
can make it hold more memory than a few times the file's size.
"""

from __future__ import annotations

import io
import os
import pickletools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from efficientids_flax.core.clustering.pickle_drafts import (
    FUNCTIONS,
    GLOBALS,
    ArrayDraft,
    ArrayPickleError,
    DtypeDraft,
    finish,
)

__all__ = ["ArrayPickleError", "read_array_pickles"]

MAX_INSTRUCTIONS = 1000  # of one pickle; an array takes about 100, whatever its size.
MAX_PROTOCOL = 5
ADVICE = "Have the tables written again with NumPy, one pickle.dump per array."

# fmt: off
_LITERALS: Final = frozenset((  # push their argument
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
))
_OTHERS: Final = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "TUPLE", "EMPTY_LIST", "LIST", "APPEND", "APPENDS",
    "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
    "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET",
))
# fmt: on
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLE_SIZES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_INSTRUCTIONS: Final = {info.code.encode("latin-1"): info for info in pickletools.opcodes}
_ALLOWED: Final = _LITERALS | _OTHERS | _CONSTANTS.keys() | _TUPLE_SIZES.keys()


def read_array_pickles(
    path: str | os.PathLike[str], names: Sequence[str]
) -> list[np.ndarray | None]:
    """The arrays of a file that holds pickles one after another, and nothing else.

    Args:
        path: a local file.
        names: what each pickle is, in order, for messages; their number is the number of pickles
            wanted.

    Returns:
        For each name an array of numbers (any shape, maybe read-only, maybe not C-contiguous, maybe
        of foreign byte order), or None where None was pickled.

    Raises:
        ArrayPickleError: the file is missing or unreadable; it holds fewer pickles or more; a
            pickle is damaged, holds something else than an array of numbers, or asks for anything
            but array reconstruction.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise ArrayPickleError(f"{path}: is not a file, expected {len(names)} pickled arrays.")
        content = path.read_bytes()
    except OSError as error:
        raise ArrayPickleError(f"{path}: cannot be read ({error.strerror or error}).") from error

    stream = io.BytesIO(content)
    arrays: list[np.ndarray | None] = []
    for number, name in enumerate(names, start=1):
        start = stream.tell()
        if start == len(content):
            raise ArrayPickleError(
                f"{path}: holds {number - 1} pickles, expected {len(names)}: "
                f"{', '.join(names)}. {ADVICE}"
            )
        where = f"{path}: pickle {number} of {len(names)} ({name}), at byte {start},"
        try:
            arrays.append(finish(_run(stream)))
        except ArrayPickleError as error:
            raise ArrayPickleError(f"{where} {error} {ADVICE}") from error
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise ArrayPickleError(f"{where} is damaged: {str(error)[:200]}. {ADVICE}") from error
    if stream.tell() != len(content):
        raise ArrayPickleError(
            f"{path}: {len(content) - stream.tell()} bytes follow the {len(names)} pickles "
            f"expected ({', '.join(names)}): another kind of file? {ADVICE}"
        )
    return arrays


def _run(stream: io.BytesIO) -> object:
    """Executes one pickle and returns what it leaves; the stream stands behind it then."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        mark = marks.pop()
        values = stack[mark:]
        del stack[mark:]
        return values

    for _ in range(MAX_INSTRUCTIONS):
        name, argument = _next_instruction(stream)
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLE_SIZES:
            values = [stack.pop() for _ in range(_TUPLE_SIZES[name])]
            stack.append(tuple(reversed(values)))
        match name:
            case "PROTO" if argument > MAX_PROTOCOL:
                raise ArrayPickleError(f"is in pickle protocol {argument}, known are 0 to 5.")
            case "STOP":
                (result,) = stack
                return result
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "EMPTY_LIST":  # no array of numbers has lists; read on to say what the pickle is
                stack.append([])
            case "LIST":
                stack.append(since_mark())
            case "APPENDS":
                _extend(stack, since_mark())
            case "APPEND":
                _extend(stack, [stack.pop()])
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                stack.append(_as_dict(since_mark()))
            case "SETITEMS":
                _update(stack, since_mark())
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _update(stack, [key, value])
            case "GLOBAL":
                stack.append(_find(*argument))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_find(module, attribute))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_apply(function, arguments))
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], ArrayDraft | DtypeDraft):
                    raise ArrayPickleError(f"sets the state of a {type(stack[-1]).__name__}.")
                stack[-1].set_state(state)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
    raise ArrayPickleError(
        f"has more than {MAX_INSTRUCTIONS} instructions; an array takes about 100."
    )


def _next_instruction(stream: io.BytesIO) -> tuple[str, Any]:
    """Name and argument of the next instruction; never reads more than the stream holds."""
    code = stream.read(1)
    if not code:
        raise ArrayPickleError("is cut off.")
    info = _INSTRUCTIONS.get(code)
    if info is None:
        raise ArrayPickleError(f"is not a pickle: no instruction has the code {code[0]:#04x}.")
    if info.name == "INST":  # protocol 0's way to call something
        raise _refused(_read_line(stream), _read_line(stream))
    if info.name not in _ALLOWED:
        raise ArrayPickleError(
            f"uses the instruction {info.name}, which no pickled array of numbers needs."
        )
    if info.name == "GLOBAL":  # pickletools would undo escapes, which pickle does not
        return info.name, (_read_line(stream), _read_line(stream))
    return info.name, None if info.arg is None else info.arg.reader(stream)


def _read_line(stream: io.BytesIO) -> str:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise ArrayPickleError("is cut off.")
    return line[:-1].decode("utf-8")


def _find(module: object, attribute: object) -> object:
    if isinstance(module, str) and isinstance(attribute, str):
        found = GLOBALS.get((module, attribute))
        if found is not None:
            return found
        raise _refused(module, attribute)
    raise ArrayPickleError("names a global that is not text.")


def _refused(module: str, attribute: str) -> ArrayPickleError:
    name = f"{module}.{attribute}"[:200]
    return ArrayPickleError(
        f"asks for {name!a}, which no array of numbers needs; nothing of it was run. "
        "Do not open this file with pickle.load unless you trust its origin."
    )


def _apply(function: object, arguments: object) -> object:
    if not any(function is known for known in FUNCTIONS):
        raise ArrayPickleError(f"calls a {type(function).__name__}.")
    if not isinstance(arguments, tuple):
        raise ArrayPickleError(f"calls with a {type(arguments).__name__}, expected a tuple.")
    return function(*arguments)  # pyright: ignore[reportCallIssue]  (one of FUNCTIONS)


def _as_dict(flat: list[Any]) -> dict[str, Any]:
    if not all(isinstance(key, str) for key in flat[::2]):  # other keys may take for ever to hash
        raise ArrayPickleError("holds a dictionary whose keys are not text.")
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _extend(stack: list[Any], values: list[Any]) -> None:
    if type(stack[-1]) is not list:
        raise ArrayPickleError(f"appends to a {type(stack[-1]).__name__}.")
    stack[-1].extend(values)


def _update(stack: list[Any], flat: list[Any]) -> None:
    if type(stack[-1]) is not dict:
        raise ArrayPickleError(f"sets items of a {type(stack[-1]).__name__}.")
    stack[-1].update(_as_dict(flat))
