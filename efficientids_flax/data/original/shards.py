"""Finds the files that hold the examples of each split."""

import re
from collections.abc import Sequence
from pathlib import Path

SPLITS = {"train": "train", "eval": "eval|valid|validation|val|dev", "test": "test"}
RECORDS = re.compile(r"\.tfrecords?(\b|[-_.])")


def example_files(directory: Path) -> dict[str, list[Path]]:
    """Split -> its files, by file name: `train.tfrecord`, `x-test.tfrecord-00000-of-00002`.

    Raises:
        ValueError: a file belongs to no split or several, or shards are missing.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(directory.iterdir()):
        if not (named := RECORDS.search(path.name)) or not path.is_file():
            continue
        stem = path.name[: named.start()]
        splits = [
            split for split, names in SPLITS.items()
            if re.search(rf"(^|[-_.])({names})([-_.]|$)", stem)
        ]  # fmt: skip
        if len(splits) != 1:
            raise ValueError(
                f"{path}: of which split is it? expected train, valid or test in its name"
            )
        found.setdefault(splits[0], []).append(path)
    for files in found.values():
        _check_shards(files)
    return found


def _check_shards(files: Sequence[Path]) -> None:
    for path in files:
        if shard := re.search(r"-(\d+)-of-(\d+)", path.name):
            begin, end = path.name[: shard.start()], path.name[shard.end() :]
            numbers = range(int(shard[2]))
            names = [
                f"{begin}-{n:0{len(shard[1])}d}-of-{shard[2]}{end}" for n in numbers
            ]  # fmt: skip
            if missing := [name for name in names if not path.with_name(name).is_file()]:
                raise ValueError(
                    f"{path}: {missing[0]} is missing"
                    f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}"
                )
