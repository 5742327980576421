"""The recorded cases: checkpoints and outputs that the real PAXml wrote."""

import tarfile
from pathlib import Path

import numpy as np

RECORDINGS = Path(__file__).parent / "recordings"
OUTPUTS = RECORDINGS / "outputs"


def unpack(name: str, directory: Path) -> Path:
    """Directory of a recorded case, unpacked to `directory` where it is an archive.

    Raises:
        FileNotFoundError: there is no such case.
    """
    found = [*RECORDINGS.glob(f"*/{name}.tar.xz"), *RECORDINGS.glob(f"*/{name}/")]
    if not found:
        raise FileNotFoundError(f"{RECORDINGS}: no recording named {name}")
    if found[0].is_dir():
        return found[0]
    with tarfile.open(found[0]) as archive:
        archive.extractall(directory, filter="data")
    return directory


def output_names(kind: str) -> list[str]:
    """Cases of a kind (folder of the recordings) whose inputs and outputs are recorded."""
    names = {path.name.removesuffix(".tar.xz") for path in (RECORDINGS / kind).iterdir()}
    return sorted(path.stem for path in OUTPUTS.glob("*.npz") if path.stem in names)


def read_outputs(name: str) -> dict[str, np.ndarray]:
    """Inputs (`in/...`), activations (`act/...`) and outputs (`out/...`) of a case."""
    with np.load(OUTPUTS / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}
