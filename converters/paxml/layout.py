"""Finds the checkpoint that a path refers to: job, `checkpoints/` folder, step, item or file.

`JOB/checkpoints/checkpoint_%08d/` holds zarr or OCDBT; `checkpoint_<n>` is FLAX (a file in version
0.0, otherwise a directory). A bare number is legal too (`paxml.checkpoint_paths`). Only finalized
steps count: Orbax writes into `*.orbax-checkpoint-tmp-*` and then renames it. On object stores,
which cannot rename, it writes `commit_success.txt` last.
"""

import os
import re
from dataclasses import dataclass, replace

from converters.errors import CheckpointError
from converters.paxml import foreign
from converters.paxml.sources import Listing, parent
from converters.stores import open_store

COMMIT = "commit_success.txt"
STATE = "state"
FLAT = "checkpoint"  # name of the msgpack file inside a directory
_STEP = re.compile(r"checkpoint_(\d+)/?|(\d+)/")
_TMP = re.compile(r".*\.orbax-checkpoint-tmp.*|tmp_\d+\.checkpoint_\d+/?")
_ARRAY = re.compile(r"step/|(mdl_vars|opt_states|extra_state)[._].*/|mdl_vars/")
_OCDBT = "manifest.ocdbt"


@dataclass(frozen=True)
class Layout:
    """How a checkpoint is laid out.

    Attributes:
        kind: 'zarr', 'ocdbt' or 'msgpack'.
        version: version of PAXml's metadata: '0.0' (none), '1.0', '1.1' or '1.2'.
        era: the releases that write this layout, in words.
    """

    kind: str
    version: str
    era: str


@dataclass(frozen=True)
class Place:
    """One finalized step.

    Attributes:
        url: the step directory or flat file.
        kind: see `Layout.kind`.
        step: listing of the step directory, or of the folder around a flat file.
        state: directory of the state below `step`; '' if it is `step` itself.
        flat: key of the msgpack file below `step`; None for other kinds.
        is_file: whether the checkpoint is a single file instead of a directory.
        number: the step number in its name, if it has one.
        notes: unfinished steps that were passed over.
    """

    url: str
    kind: str
    step: Listing
    state: str
    flat: str | None
    is_file: bool
    number: int | None
    notes: tuple[str, ...] = ()


def locate(path: str | os.PathLike[str], step: int | None = None) -> Place:
    """Find the checkpoint at `path`: step `step`, or the newest finalized one.

    Raises:
        CheckpointError: nothing exists there, nothing is finalized, or it is not a PAXml
            checkpoint; the message says what it is.
    """
    url = os.fspath(path)
    url = url.rstrip("/") or url
    listing = Listing(open_store(url))
    names = listing.children()
    if not names:
        return _check_number(_file(url), step)
    above = parent(url)
    name = above[1] if above else ""
    if _TMP.fullmatch(name):
        raise CheckpointError(
            f"{url}: unfinished: PAXml writes into such a directory and renames it when it is "
            "complete. Use an older step, or rename it if you know that it is whole."
        )
    if name == STATE and above and _kind(names):
        step_listing = Listing(open_store(above[0]))
        outer = parent(above[0])
        if _TMP.fullmatch(outer[1] if outer else ""):
            return locate(above[0], step)  # raises the error for unfinished steps
        return _check_number(_step(above[0], step_listing), step)
    if _kind(names) or f"{STATE}/" in names:
        return _check_number(_step(url, listing), step)
    if "checkpoints/" in names:
        return _choose(f"{url}/checkpoints", listing.child("checkpoints"), step)
    if any(_STEP.fullmatch(child) or _TMP.fullmatch(child) for child in names):
        return _choose(url, listing, step)
    if names in (["metadata"], [COMMIT, "metadata"]):
        raise CheckpointError(f"{url}: the metadata of a step alone; give the directory above it")
    reason = _partial(names)
    raise CheckpointError(f"{url}: {reason or 'no checkpoint found: ' + foreign.describe(names)}")


def _choose(url: str, folder: Listing, step: int | None) -> Place:
    """Choose step `step`, or the newest finalized one, in the `checkpoints/` folder at `url`."""
    names = folder.children()
    numbers: dict[int, list[str]] = {}
    for name in names:
        found = _STEP.fullmatch(name)
        if found:
            numbers.setdefault(int(found[1] or found[2]), []).append(name)
    unfinished = [f"ignored {url}/{n.rstrip('/')}: unfinished" for n in names if _TMP.fullmatch(n)]
    if step is not None and step not in numbers:
        raise CheckpointError(
            "\n  ".join([f"{url}: no step {step}; there are {_list(sorted(numbers))}", *unfinished])
        )
    notes: list[str] = []
    for number in sorted(numbers if step is None else [step], reverse=True):
        name, *others = numbers[number]
        place = f"{url}/{name.rstrip('/')}"
        if others:
            raise CheckpointError(
                f"{url}: {name} and {' and '.join(others)} are both step {number}; give the one "
                "you mean"
            )
        inside = folder.child(name) if name.endswith("/") else None
        reason = _unfinished(inside) if inside else None
        if reason is None:
            found = _step(place, inside) if inside else _flat(place, folder, name)
            return replace(found, notes=tuple(unfinished + notes))
        if step is not None:
            raise CheckpointError(f"{place}: {reason}")
        notes.append(f"ignored {place}: {reason}")
    raise CheckpointError(
        "\n  ".join([f"{url}: no finished checkpoint found in it", *unfinished, *notes])
    )


def _step(url: str, step: Listing) -> Place:
    """The step directory at `url`."""
    reason = _unfinished(step)
    if reason:
        raise CheckpointError(f"{url}: {reason}")
    names = step.children()
    state = STATE if f"{STATE}/" in names else ""
    inside = step.children(state)
    kind = _kind(inside)
    place = f"{url}/{state}".rstrip("/")
    if kind is None:
        raise CheckpointError(f"{place}: no checkpoint found: {foreign.describe(inside)}")
    if kind == "damaged ocdbt":
        raise CheckpointError(
            f"{place}: {_OCDBT} is missing (the other files are those of an OCDBT database); no "
            "array can be found without it. Copy the checkpoint again."
        )
    flat = f"{state}/{FLAT}".lstrip("/") if kind == "msgpack" else None
    above = parent(url)
    found = _STEP.fullmatch(f"{above[1]}/") if above else None
    number = int(found[1] or found[2]) if found else None
    return Place(url, kind, step, state, flat, False, number)


def _flat(url: str, folder: Listing, name: str) -> Place:
    """The flat msgpack file `name` of `folder`."""
    found = _STEP.fullmatch(name)
    number = int(found[1]) if found and found[1] else None
    return Place(url, "msgpack", folder, "", name, True, number)


def _file(url: str) -> Place:
    """Find what a path without children refers to: a file, an empty directory or nothing."""
    above = parent(url)
    if above is None:
        raise CheckpointError(f"{url}: no checkpoint found: empty")
    folder, name = Listing(open_store(above[0])), above[1]
    if not folder.store.exists(name):
        kind = (
            "an empty directory" if f"{name}/" in folder.children() else "no such file or directory"
        )
        raise CheckpointError(f"{url}: no checkpoint found: {kind}")
    holder = parent(above[0])
    if name in (_OCDBT, "_METADATA", "_sharding"):
        return locate(above[0])
    if name in (".zarray", "zarr.json", "metadata"):
        raise CheckpointError(f"{url}: a part of a checkpoint; give its step directory")
    if name == FLAT and _kind(folder.children()) != "msgpack":
        return locate(above[0])
    if (
        name == FLAT
        and holder is not None
        and (holder[1] == STATE or _STEP.fullmatch(holder[1] + "/"))
    ):
        return locate(above[0])
    wrong = foreign.describe_file(name, folder.store.read(name, 0, 16))
    if wrong:
        raise CheckpointError(f"{url}: no checkpoint found: {wrong}")
    return _flat(url, folder, name)


def _kind(names: list[str]) -> str | None:
    """The kind of state item with these children; None if it is not a state item."""
    if _OCDBT in names:
        return "ocdbt"
    if any(_ARRAY.fullmatch(name) for name in names):
        return "zarr"
    if any(name.startswith("ocdbt.process_") for name in names) or (
        "d/" in names and ("_METADATA" in names or FLAT in names)
    ):
        return "damaged ocdbt"
    return "msgpack" if FLAT in names else None


def _partial(names: list[str]) -> str | None:
    """Why a step directory with these children has no complete state; None if it may have one."""
    if not names:
        return "an empty directory"
    partial = [name for name in names if _TMP.fullmatch(name)]
    if partial and f"{STATE}/" not in names and not _kind(names):
        return f"unfinished: it holds only {_list(partial)}"
    if set(names) <= {"metadata/", COMMIT}:
        return "unfinished: it holds metadata, but no state/"
    return None


def _unfinished(step: Listing) -> str | None:
    """Why the step directory is not finalized; None if it is."""
    names = step.children()
    reason = _partial(names)
    if reason is None and step.remote and COMMIT not in names:
        return (
            f"unfinished: it has no {COMMIT}, which is written last on object stores. Add an empty "
            "file of that name if you know that the copy is whole."
        )
    return reason


def _check_number(place: Place, step: int | None) -> Place:
    """Return `place`, which the user named; raise if it is not the wanted step."""
    if step is not None and place.number is not None and place.number != step:
        raise CheckpointError(
            f"{place.url}: this is step {place.number}, not {step}; give its folder to choose a "
            "step"
        )
    return place


def _list(items: list[int] | list[str]) -> str:
    text = ", ".join(str(item).rstrip("/") for item in items[:10])
    return (text or "none") + (f", ... ({len(items)} in all)" if len(items) > 10 else "")
