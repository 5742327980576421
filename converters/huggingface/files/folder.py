"""The files of a pretrained model: its configuration, and its tensors in one or several files."""

import importlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.arrays import Leaf
from converters.errors import CheckpointError, MappingError
from converters.huggingface.files.safetensors import read_safetensors
from converters.huggingface.files.torch import read_torch
from converters.stores import LocalStore, Store
from efficientids_flax.backbone.presets import pretrained_folder, read_config_json

Tensors = Mapping[str, Leaf]
Read = Callable[[Store, str], Tensors]
SINGLE, INDEX = "model.safetensors", ".index.json"
# Words for it, name of the single file, what reads one; the first that is there is taken.
KINDS: tuple[tuple[str, str, Read], ...] = (
    ("safetensors", SINGLE, read_safetensors),
    ("PyTorch", "pytorch_model.bin", read_torch),
)
# What has to be downloaded; weights in other formats and for other programs are left alone.
WANTED = (
    "*.json", "model*.safetensors", "tokenizer*", "*.model", "vocab*", "merges.txt", "*.jinja",
)  # fmt: skip


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model whose tensors are not read yet.

    Attributes:
        folder: where it lies.
        config: content of its `config.json`.
        tensors: name -> leaf.
        layout: how the tensors lie, in words.
    """

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Leaf]
    layout: str


def open_pretrained(
    name_or_path: str | os.PathLike[str],
    revision: str = "main",
    *,
    download: bool = False,
    token: str | None = None,
) -> Pretrained:
    """Open a pretrained model; nothing but headers is read.

    Args:
        name_or_path: folder, or name of a model in the HuggingFace cache.
        revision: branch, tag or commit, for a name.
        download: fetch what the cache lacks from the hub (needs `huggingface_hub`).
        token: for models that are not public; None takes what `hf auth login` stored.

    Raises:
        CheckpointError: no such model, no weights, or damaged ones.
    """
    try:
        if download and not Path(name_or_path).expanduser().is_dir():
            folder = _download(os.fspath(name_or_path), revision, token)
        else:
            folder = pretrained_folder(name_or_path, revision)
        config = read_config_json(folder)
    except (FileNotFoundError, ValueError) as error:
        raise CheckpointError(str(error)) from error
    store = LocalStore(folder)
    for kind, single, read in KINDS:
        if store.exists(single):
            return Pretrained(folder, config, read(store, single), kind)
        if store.exists(f"{single}{INDEX}"):
            tensors, count = indexed_tensors(store, f"{single}{INDEX}", read)
            return Pretrained(folder, config, tensors, f"{kind} in {count} files")
    raise CheckpointError(f"{folder}: has neither {SINGLE} nor {SINGLE}{INDEX}{_others(store)}")


def _others(store: Store) -> str:
    """What weights there are in other formats, for the message."""
    found = [
        name
        for name in store.children()
        if name.endswith((".bin", ".safetensors", ".gguf", ".h5", ".msgpack", ".pth", ".pt"))
    ]
    if not found:
        return "; the weights are missing, download all files of the model"
    return (
        f"; it holds {', '.join(found[:5])}, which are not read. Save the model with "
        "`save_pretrained` of transformers, which writes safetensors."
    )


def indexed_tensors(
    store: Store, index: str, read: Read = read_safetensors
) -> tuple[dict[str, Leaf], int]:
    """Tensors of all files that an index names, and how many files those are.

    Raises:
        CheckpointError: the index and its files do not fit each other.
    """
    where = f"{store.url}/{index}"
    try:
        places = json.loads(store.read(index))["weight_map"]
        files = list(dict.fromkeys(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{where}: no index of files with tensors: {error!r}") from error
    odd = [name for name in files if not isinstance(name, str) or "/" in name or "\\" in name]
    if odd:
        raise CheckpointError(f"{where}: {odd[0]!r} is no file beside the index")
    missing = [name for name in files if not store.exists(name)]
    if missing:
        raise CheckpointError(
            f"{store.url}: {len(missing)} of {len(files)} files are missing: "
            f"{', '.join(missing[:5])}. Download all files of the model."
        )
    found: dict[str, Leaf] = {}
    problems: list[str] = []
    for file in files:
        for name, leaf in read(store, file).items():
            if name in found:
                problems.append(f"{name}: is in {found[name].spec.location} and in {file}")
            if places.get(name) != file:
                problems.append(f"{name}: is in {file}, the index says {places.get(name)}")
            found[name] = leaf
    problems += [
        f"{name}: {file} does not hold it" for name, file in places.items() if name not in found
    ]
    if problems:
        raise CheckpointError(
            "\n  ".join([f"{where}: does not fit its files:", *dict.fromkeys(problems[:20])])
        )
    return found, len(files)


def _download(name: str, revision: str, token: str | None) -> Path:
    try:
        hub = importlib.import_module("huggingface_hub")
        errors = importlib.import_module("huggingface_hub.errors")
    except ImportError as error:
        raise MappingError(
            "downloads need huggingface_hub: pip install 'efficientids-flax[hf]'"
        ) from error
    try:
        found = hub.snapshot_download(
            name, revision=revision, token=token, allow_patterns=list(WANTED)
        )
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{name}: access is not granted; ask for it on the model's page, and give the token of "
            "your account (--token, HF_TOKEN or `hf auth login`)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{name}: the hub has no such model, or shows it to none but those it knows: check the "
            "name, or give a token (--token, HF_TOKEN or `hf auth login`)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{name}: the hub has no revision '{revision}' of it") from error
    except Exception as error:  # the client's errors have no common base
        if hub.constants.HF_HUB_OFFLINE:
            raise CheckpointError(
                f"{name}: is not in the cache, and HF_HUB_OFFLINE forbids to download it"
            ) from error
        raise CheckpointError(f"{name}: cannot be downloaded: {error}") from error
    return Path(found)
