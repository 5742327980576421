"""The bundled recordings: checkpoints and values that the real PAXml wrote."""

import json
import tarfile
from pathlib import Path

RECORDINGS = Path(__file__).parent / "recordings"
OUTPUTS = RECORDINGS / "outputs"
RECORDED = ("outputs", "activations")  # folders of recordings in the documented format


def unpack(name: str, directory: Path) -> Path:
    """Directory of a recorded checkpoint; an archive is unpacked to `directory`.

    Raises:
        FileNotFoundError: there is no such case.
    """
    found = [*RECORDINGS.glob(f"*/{name}.tar.xz"), *RECORDINGS.glob(f"*/{name}/checkpoint/")]
    if not found:
        raise FileNotFoundError(f"{RECORDINGS}: no recording named {name}")
    if found[0].is_dir():
        return found[0].parent
    return _extract(found[0], directory)


def recordings() -> dict[str, Path]:
    """Name -> folder of every bundled recording with values."""
    return {
        place.name: place
        for kind in RECORDED
        for place in sorted((RECORDINGS / kind).iterdir())
        if (place / "manifest.json").is_file()
    }


def checkpoint_of(recording: Path, directory: Path) -> Path:
    """The checkpoint that a recording names; an archive is unpacked to `directory`."""
    named = json.loads((recording / "manifest.json").read_text())["checkpoint"]
    place = (recording / named).resolve()
    if place.is_dir():
        return place
    return _extract(place, directory) / "checkpoint"


def _extract(archive: Path, directory: Path) -> Path:
    with tarfile.open(archive) as file:
        file.extractall(directory, filter="data")
    return directory
