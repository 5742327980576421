"""Clustering tables in .npz and .safetensors files: formats that cannot contain code.

Both hold the tables under the field names of `ClusteringInfo` (without `means` if there are none),
a schema version and, if known, the digest of the items' `catalogue`: as scalar arrays in .npz, as
metadata in .safetensors. The original's own format, four pickles of NumPy arrays, can be written
too.
"""

from __future__ import annotations

import io
import os
import pickle
import secrets
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from efficientids_flax.core.clustering.checks import ClusteringError

if TYPE_CHECKING:
    from types import ModuleType

SUFFIXES = (".npz", ".safetensors")
REQUIRED = ("cluster_of", "members", "slot_of")
OPTIONAL = ("means",)
VERSION_KEY = "schema_version"
VERSION = 1
CATALOGUE_KEY = "catalogue"
PICKLE_PROTOCOL = 3  # the last one with module names on a line of their own, see `_pickled`

# What zipfile and NumPy's header parser raise on damaged files.
_NPZ_ERRORS = (
    zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError, ValueError, TypeError,
    EOFError, LookupError, RuntimeError, MemoryError, Warning,
)  # fmt: skip


def suffix_problem(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with the name of a file to read or write; None if nothing is."""
    suffix = Path(path).suffix
    if suffix in SUFFIXES:
        return None
    found = f"ends in {suffix}" if suffix else "has no suffix"
    return f"{path}: the name {found}, expected one of {', '.join(SUFFIXES)}"


def read_tables(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], str | None]:
    """The tables of a file that `write_tables` wrote; not yet checked against each other.

    Returns:
        (field of `ClusteringInfo` -> table, digest of the catalogue that they belong to or None).

    Raises:
        ClusteringError: the file is missing, damaged, of another kind, has other arrays, or
            another schema version.
        ImportError: a .safetensors file without the safetensors package.
    """
    path = Path(path)
    problem = suffix_problem(path)
    if problem is not None:
        raise ClusteringError(f"{problem}; convert-clustering makes one from a pickle.")
    if not path.is_file():
        raise ClusteringError(f"{path}: no such file.")
    try:
        arrays = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
    except OSError as error:
        raise ClusteringError(f"{path}: cannot be read ({error}).") from error

    version = arrays.pop(VERSION_KEY, np.array(VERSION))
    if version.shape != () or str(version) != str(VERSION):
        raise ClusteringError(
            f"{path}: has schema version {str(version)[:40]}, this release reads {VERSION}; "
            "update efficientids-flax."
        )
    catalogue = arrays.pop(CATALOGUE_KEY, None)
    if catalogue is not None and (catalogue.shape != () or catalogue.dtype.kind != "U"):
        raise ClusteringError(
            f"{path}: {CATALOGUE_KEY} is {list(catalogue.shape)} of {catalogue.dtype}, expected one"
            " text; write it with ClusteringInfo.save."
        )
    missing = [name for name in REQUIRED if name not in arrays]
    foreign = sorted(arrays.keys() - {*REQUIRED, *OPTIONAL})
    if missing or foreign:
        raise ClusteringError(
            f"{path}: holds {sorted(arrays)}, expected {list(REQUIRED)} and maybe "
            f"{list(OPTIONAL)}; write it with ClusteringInfo.save or convert-clustering."
        )
    return arrays, None if catalogue is None else str(catalogue)


def write_tables(
    path: str | os.PathLike[str],
    tables: Mapping[str, np.ndarray],
    *,
    catalogue: str | None = None,
    overwrite: bool = False,
) -> None:
    """Writes the tables atomically: the file appears under its name when it is complete.

    Args:
        path: with one of `SUFFIXES`.
        tables: field of `ClusteringInfo` -> table.
        catalogue: digest of the catalogue of these items; None: unknown.
        overwrite: whether to replace a file.

    Raises:
        ValueError: the name does not end in .npz or .safetensors.
        FileExistsError: the file exists and `overwrite` is false.
        ImportError: .safetensors without the safetensors package.
        OSError: the file cannot be written; nothing is left under its name then.
    """
    problem = suffix_problem(path)
    if problem is not None:
        raise ValueError(f"{problem}.")
    said = {VERSION_KEY: str(VERSION)} | ({} if catalogue is None else {CATALOGUE_KEY: catalogue})
    make = _npz_bytes if Path(path).suffix == ".npz" else _safetensors_bytes
    _write(Path(path), lambda: make(tables, said), overwrite=overwrite)


def write_pickles(
    path: str | os.PathLike[str], tables: Sequence[np.ndarray | None], *, overwrite: bool = False
) -> None:
    """Writes arrays as the original does, one pickle each, atomically.

    Raises:
        FileExistsError, OSError: see `write_tables`.
    """

    _write(Path(path), lambda: b"".join(map(_pickled, tables)), overwrite=overwrite)


def _pickled(table: np.ndarray | None) -> bytes:
    """Pickle with NumPy 1's module name, which NumPy 2 can read too."""
    content = pickle.dumps(table, PICKLE_PROTOCOL)
    # Only the first occurrence: the module name comes first, values may contain the same bytes.
    return content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n", 1)


def _write(path: Path, make: Callable[[], bytes | memoryview], *, overwrite: bool) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such directory; make it first.")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a directory; choose another name.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path}: exists already; choose another name or overwrite it.")
    content = make()
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            partial.replace(path)
        else:
            _rename_unless_taken(partial, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise OSError(
            f"{path}: cannot be written ({error.strerror or error}); what was there is unchanged."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _rename_unless_taken(partial: Path, path: Path) -> None:
    """Renames, but fails if another process has made `path` meanwhile (needs hard links)."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        raise FileExistsError(f"{path}: another process has just written it.") from None
    except OSError:  # no hard links here
        partial.replace(path)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy warns of odd headers; ours are not odd
            for name in archive.namelist():
                content = io.BytesIO(archive.read(name))  # reading it whole verifies the checksum
                array = np.lib.format.read_array(content, allow_pickle=False)
                arrays[name.removesuffix(".npy")] = array
    except _NPZ_ERRORS as error:
        raise ClusteringError(
            f"{path}: is not a readable .npz file of numbers ({error}); convert the pickle again."
        ) from error
    return arrays


def _npz_bytes(tables: Mapping[str, np.ndarray], said: Mapping[str, str]) -> memoryview:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: np.array(text) for name, text in said.items()}
    arrays |= {VERSION_KEY: np.array(VERSION), **tables}
    np.savez(buffer, **arrays)
    return buffer.getbuffer()


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    safetensors = _import_safetensors(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, ValueError, TypeError, LookupError) as error:
        raise ClusteringError(
            f"{path}: is not a readable .safetensors file ({error}); convert the pickle again."
        ) from error
    said = {key: metadata[key] for key in (VERSION_KEY, CATALOGUE_KEY) if key in metadata}
    return arrays | {key: np.array(text) for key, text in said.items()}


def _safetensors_bytes(tables: Mapping[str, np.ndarray], said: Mapping[str, str]) -> bytes:
    _import_safetensors("the output")
    from safetensors.numpy import save

    return save(dict(tables), metadata=dict(said))


def _import_safetensors(what: object) -> ModuleType:
    try:
        import safetensors
    except ImportError as error:
        raise ImportError(
            f"{what}: the safetensors package is not installed; "
            "pip install 'efficientids-flax[safetensors]', or use .npz."
        ) from error
    return safetensors
