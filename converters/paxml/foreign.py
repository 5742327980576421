"""Describes directories and files that are not PAXml checkpoints, to make the error helpful."""

import re

_SIGNS = (
    # a child's name, what it shows
    (r"saved_model\.pb", "a TensorFlow SavedModel"),
    (r".*\.data-\d+-of-\d+", "a TensorFlow checkpoint"),
    (r"target\..*/", "a T5X checkpoint"),
    (r".*\.safetensors(\.index\.json)?", "a safetensors model (Hugging Face)"),
    (r"pytorch_model.*\.bin|.*\.pth?", "a PyTorch checkpoint"),
    (r"\.zarray|zarr\.json", "one array of a checkpoint; give its step directory"),
    (r"_(CHECKPOINT_)?METADATA|manifest\.ocdbt|(default|items|params)/", "an Orbax checkpoint"),
    (r"events\.out\.tfevents.*", "summaries of a job; give the job's directory"),
)
_STARTS = (
    (b"PK\x03\x04", "a zip archive (.npz or PyTorch)"),
    (b"\x93NUMPY", "a NumPy array"),
    *((bytes([0x80, protocol]), "a pickle") for protocol in (2, 3, 4, 5)),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"{", "JSON"),
)
EXPECTED = (
    "expected a PAXml job, its checkpoints/ folder, a step (checkpoint_00000100), its state/ item "
    "or a FLAX file"
)


def describe(names: list[str]) -> str:
    """What a directory with these children looks like."""
    for pattern, kind in _SIGNS:
        found = next((name for name in names if re.fullmatch(pattern, name)), None)
        if found:
            return f"{found.rstrip('/')} shows {kind}; {EXPECTED}"
    some = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return f"it holds {some or 'nothing'}; {EXPECTED}"


def describe_file(name: str, start: bytes) -> str | None:
    """Describe a file by its first bytes; None if it may be a FLAX msgpack file."""
    if not start:
        return "an empty file"
    for sign, kind in _STARTS:
        if start.startswith(sign):
            return f"{kind}; {EXPECTED}"
    first = start[0]  # the file is one msgpack map
    if not (0x80 <= first <= 0x8F or first in (0xDE, 0xDF)):
        return f"{name} is not msgpack (first byte 0x{first:02x}); {EXPECTED}"
    return None
