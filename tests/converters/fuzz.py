"""Damages one file of a real checkpoint, as copies, disks and people do.

`python -m tests.converters.fuzz 3600` runs for an hour with new seeds, and prints every case that
ends neither in an output nor in one clear message.
"""

import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from efficientids_flax.commands.program import main
from parity_tests.cases import unpack

CASES = ("LlamaAdafactor_gda", "LlamaWeightsOnly_flax", "LlamaSgdm_ocdbt", "QuantInt8Linear_gda")
PATIENCE = 20  # seconds after which a command counts as hanging
LONGEST = 12_000  # characters that a message may have
HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 10**12, 2**63, 1.5, float("inf"), float("nan"), "", "x", "\x1b[2J\0",
    "é" * 300, [], {}, [[]], [10**12], [-1], [0, 0], ["a"], {"a": {}}, "<f4", "|V2", "bfloat16",
)  # fmt: skip
TEXTS = ("inf", "nan", "-1", "0", "1e400", "None", "True", "[]", "type/x/y", "'é", "99999999999999")


def damaged(source: Path, place: Path, seed: int) -> str:
    """Copy a checkpoint, damage one file of the copy, and say how."""
    generator = random.Random(seed)
    shutil.copytree(source, place)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    kinds: dict[str, list[Path]] = {}
    for path in files:
        kinds.setdefault(_kind(path), []).append(path)
    kind = generator.choice(sorted(kinds))
    path = generator.choice(kinds[kind])
    changes: dict[str, Callable[[Path, random.Random], str]] = {"json": _json, "text": _text}
    change = changes.get(kind, _bytes) if generator.random() < 0.8 else _bytes
    return f"{path.relative_to(place)}: {change(path, generator)}"


def _kind(path: Path) -> str:
    if path.suffix == ".txt":
        return "text"
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return "bytes"
    return "json"


def _json(path: Path, generator: random.Random) -> str:
    """Change or remove one value in a JSON file."""
    tree = json.loads(path.read_bytes())
    if not isinstance(tree, dict | list) or not tree:
        return _bytes(path, generator)
    holder: Any = tree
    keys: list[Any] = []
    while True:
        key = generator.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        keys.append(key)
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or generator.random() < 0.15:
            break
        holder = inner
    if generator.random() < 0.15:
        del holder[key]
        told = "deleted"
    else:
        holder[key] = generator.choice(HOSTILE)
        told = repr(holder[key])[:40]
    path.write_text(json.dumps(tree))
    return f"{keys} {told}"


def _text(path: Path, generator: random.Random) -> str:
    """Change a value in one line of a dump."""
    lines = path.read_text().splitlines()
    numbers = [i for i, line in enumerate(lines) if " : " in line] or list(range(len(lines)))
    number = generator.choice(numbers)
    head = lines[number].partition(" : ")[0]
    lines[number] = generator.choice(["", head, f"{head} : {generator.choice(TEXTS)}"])
    path.write_text("\n".join(lines))
    return f"line {number}: {lines[number][:80]!r}"


def _bytes(path: Path, generator: random.Random) -> str:
    """Truncate or empty the file, or change some of its bytes."""
    content = bytearray(path.read_bytes())
    way = generator.choice(["cut", "flip", "flip", "empty", "grow"])
    if way == "cut":
        content = content[: generator.randrange(len(content) + 1)]
    elif way == "empty":
        content = bytearray()
    elif way == "grow":
        content += bytes(generator.randrange(1, 64))
    else:
        for _ in range(generator.choice([1, 1, 8])):
            if content:
                content[generator.randrange(len(content))] = generator.randrange(256)
    path.write_bytes(bytes(content))
    return way


@contextmanager
def patience() -> Iterator[None]:
    """Raise `TimeoutError` if the block takes too long."""

    def hang(*_: Any) -> None:
        raise TimeoutError("hangs")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault(checkpoint: Path, out: Path) -> str | None:
    """What the commands do wrong with a checkpoint; None if nothing."""
    for arguments in (["inspect", checkpoint], ["convert", checkpoint, out, "--memory", "64MiB"]):
        with patience():
            result = CliRunner().invoke(main, list(map(str, arguments)))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            return "".join(traceback.format_exception(result.exception)[-3:])
        if result.exit_code not in (0, 1):
            return f"exit code {result.exit_code}: {result.output[:200]}"
        if len(result.stderr) > LONGEST:
            return f"a message of {len(result.stderr)} characters: {result.stderr[:200]}"
        if found := re.search(r"[\x00-\x08\x0b-\x1f\x7f]", result.output):
            return f"a raw control character {found[0]!r}"
        if result.exit_code == 1 and arguments[0] == "convert" and out.exists():
            return "an output in spite of an error"
    return None


def sources(place: Path) -> dict[str, Path]:
    """The checkpoints, with their job's files beside them, unpacked once."""
    return {name: unpack(name, place / name) for name in CASES}


def attempt(source: Path, seed: int) -> str | None:
    """Damage a checkpoint with a seed, and return what goes wrong, if anything."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "case"
        how = damaged(source, copy, seed)
        found = fault(copy / "checkpoint", Path(folder) / "out")
        return None if found is None else f"seed {seed}, {how}: {found}"


if __name__ == "__main__":
    end, seed = time.monotonic() + float(sys.argv[1]), int(time.time())
    with tempfile.TemporaryDirectory() as unpacked:
        known = sources(Path(unpacked))
        count = faults = 0
        while time.monotonic() < end:
            for name, source in known.items():
                found = attempt(source, seed)
                if found is not None:
                    faults += 1
                    sys.stdout.write(f"{name}: {found}\n")
                count += 1
            seed += 1
        sys.stdout.write(f"{count} tried, {faults} ended badly\n")
    sys.exit(faults > 0)
