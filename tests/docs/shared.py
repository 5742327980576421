"""Results that pages share: a command that was run once on the same files is not run again.

Only commands that read files, and write where they are told to, are shared. The same files: those
of the repository, which tests leave as they are, and those below build/ whose names, sizes and
times of change are the same. What such a command wrote is copied, times of change included, so that
the next command on it is shared as well.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

SHARED = {"inspect", "convert", "convert-hf", "convert-clustering", "parity", "recommend"}
BUILD = "build/"

Fingerprint = tuple[tuple[str, int, int], ...]
Result = tuple[int, str]
_folder = tempfile.TemporaryDirectory(prefix="docs-")
_known: dict[tuple[tuple[str, ...], tuple[Fingerprint, ...]], tuple[Result, dict[str, Path]]] = {}


def once(words: list[str], run: Callable[[], Result]) -> Result:
    """What a command of `efficientids` gives: run, or as it was before.

    Args:
        words: of the command line, the program's name first.
        run: runs it.
    """
    inputs = [word for word in words[2:] if Path(word).exists()]
    elsewhere = [word for word in inputs if not word.startswith((BUILD, "parity_tests/"))]
    if words[1] not in SHARED or elsewhere or any(":" in word for word in words):
        return run()
    # With what lies beside: commands look for a job's files and for a clustering there.
    places = sorted({"/".join(Path(w).parts[:2]) for w in words[2:] if w.startswith(BUILD)})
    before = tuple(map(_fingerprint, places))
    key = tuple(words), before
    if key not in _known:
        result = run()
        made = [p for p, old in zip(places, before, strict=True) if _fingerprint(p) != old]
        kept = Path(tempfile.mkdtemp(dir=_folder.name))
        copies = {place: _copy(place, kept / str(n)) for n, place in enumerate(made)}
        _known[key] = result, copies
        return result
    result, copies = _known[key]
    for place, copy in copies.items():
        shutil.rmtree(place, ignore_errors=True)
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        _copy(copy, Path(place))
    return result


def _copy(source: str | Path, target: Path) -> Path:
    if Path(source).is_dir():
        return Path(shutil.copytree(source, target))
    return Path(shutil.copy2(source, target))


def _fingerprint(place: str) -> Fingerprint:
    root = Path(place)
    files = sorted(path for path in [root, *root.rglob("*")] if path.is_file())
    stats = [(path, path.stat()) for path in files]
    return tuple(
        (path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns) for path, stat in stats
    )
