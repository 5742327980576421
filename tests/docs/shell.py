"""The few programs of a shell that the pages use, as functions: processes would cost time."""

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.docs.served import curl


def _mkdir(*words: str) -> None:
    for word in words:
        if word != "-p":
            Path(word).mkdir(parents=True, exist_ok=True)


def _tar(flag: str, archive: str, into: str, place: str) -> None:
    assert (flag, into) == ("-xf", "-C"), "tar -xf ARCHIVE -C PLACE"
    with tarfile.open(archive) as opened:
        opened.extractall(place, filter="data")


def _cp(*words: str) -> None:
    *sources, target = (word for word in words if word != "-r")
    for source in sources:
        if Path(source).is_dir():
            inside = Path(target, Path(source).name) if Path(target).is_dir() else Path(target)
            shutil.copytree(source, inside)
        else:
            shutil.copy(source, target)


def _ls(*words: str) -> str:
    (place,) = [word for word in words if not word.startswith("-")] or ["."]
    return "".join(
        f"{name}\n"
        for name in sorted(path.name for path in Path(place).iterdir())
        if name[0] != "."
    )


def _cat(path: str) -> str:
    return Path(path).read_text()


def _head(flag: str, path: str) -> str:
    return "".join(Path(path).read_text().splitlines(keepends=True)[: int(flag.lstrip("-n"))])


SHELL: dict[str, Callable[..., str | None]] = {
    "curl": curl, "cat": _cat, "cp": _cp, "head": _head, "ls": _ls, "mkdir": _mkdir, "tar": _tar,
    "export": lambda *pairs: os.environ.update(pair.split("=", 1) for pair in pairs),
}  # fmt: skip
