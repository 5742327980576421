"""Reads tensors that are in several files, with the index that says which file has which."""

import json
from collections.abc import Callable, Mapping

from converters.arrays import Leaf
from converters.errors import CheckpointError
from converters.huggingface.files.safetensors import read_safetensors
from converters.huggingface.files.values import equal_values
from converters.stores import Store

Tensors = Mapping[str, Leaf]
Read = Callable[[Store, str], Tensors]
INDEX = ".index.json"


def indexed_tensors(
    store: Store, index: str, read: Read = read_safetensors
) -> tuple[dict[str, Leaf], int, dict[str, str]]:
    """Read the tensors of all files that an index names.

    If two files hold a tensor with the same values, it is taken from the file that the index names.

    Args:
        store: the store that has the files.
        index: name of the index.
        read: reads one file.

    Returns:
        Name -> tensor; the number of files; and name -> how the index contradicts the files, which
        only matters if that tensor is needed.

    Raises:
        CheckpointError: it is not an index, or a file that it names is missing.
    """
    where = f"{store.url}/{index}"
    places, files = _places(store, index, where)
    missing = [name for name in files if not store.exists(name)]
    if missing:
        raise CheckpointError(
            f"{store.url}: {len(missing)} of {len(files)} files are missing: "
            f"{', '.join(missing[:5])}. Download all files of the model."
        )
    held: dict[str, dict[str, Leaf]] = {}  # name -> file -> tensor
    for file in files:
        for name, leaf in read(store, file).items():
            held.setdefault(name, {})[file] = leaf
    found, slips = {}, {}
    for name, leaves in held.items():
        file = places.get(name)
        found[name] = leaf = leaves.get(file or "") or next(iter(leaves.values()))
        if file not in leaves:
            slips[name] = f"{where}: {name}: is in {', '.join(leaves)}, the index says {file}"
        others = [other for other in leaves.values() if other is not leaf]
        if not all(equal_values(leaf, other) for other in others):
            slips[name] = f"{where}: {name}: {' and '.join(leaves)} hold other values of it"
    for name in places:
        if name not in held:
            slips[name] = f"{where}: {name}: {places[name]} does not hold it"
    return found, len(files), slips


def _places(store: Store, index: str, where: str) -> tuple[dict[str, str], list[str]]:
    """Name -> file, and a list of the files."""
    try:
        places = dict(json.loads(store.read(index))["weight_map"])
        files = list(dict.fromkeys(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{where}: no index of files with tensors: {error!r}") from error
    odd = [name for name in files if not isinstance(name, str) or "/" in name or "\\" in name]
    if odd:
        raise CheckpointError(f"{where}: {odd[0]!r} is no file beside the index")
    return places, files
