"""Opens a pretrained model: its configuration, and its tensors in one or several files."""

import contextlib
import importlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.arrays import Leaf
from converters.errors import CheckpointError, MappingError
from converters.huggingface.files.index import INDEX, Read, indexed_tensors
from converters.huggingface.files.safetensors import read_safetensors
from converters.huggingface.files.torch import read_torch
from converters.huggingface.names import may_be_missing
from converters.stores import LocalStore, Store
from efficientids_flax.backbone.presets import pretrained_folder, read_config_json

Kind = tuple[str, str, Read]
SINGLE = "model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = re.compile(r"adapter_model\.(safetensors|bin)")
SHARD = re.compile(r"(?P<stem>.+)-\d+-of-(?P<count>\d+)(?P<kind>\.(safetensors|bin))")
# (name of the format, name of a single file, its reader); the first format that exists is taken.
KINDS: tuple[Kind, ...] = (
    ("safetensors", SINGLE, read_safetensors),
    ("PyTorch", "pytorch_model.bin", read_torch),
)
# Files to download; weights in other formats and for other programs are not.
WANTED = (
    "*.json", "model*.safetensors", "tokenizer*", "*.model", "vocab*", "merges.txt", "*.jinja",
)  # fmt: skip


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model whose tensors are not read yet.

    Attributes:
        folder: the model's folder.
        config: content of its `config.json`.
        tensors: name -> leaf.
        layout: how the tensors are stored, in words.
        slips: name -> sentence on how the index contradicts the files; matters only if the tensor
            is needed.
        notes: what the user should know, one line each.
    """

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Leaf]
    layout: str
    slips: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_pretrained(
    name_or_path: str | os.PathLike[str],
    revision: str = "main",
    *,
    download: bool = False,
    token: str | None = None,
) -> Pretrained:
    """Open a pretrained model; only headers are read.

    Args:
        name_or_path: folder, or name of a model in the HuggingFace cache.
        revision: branch, tag or commit, for a name.
        download: download what the cache lacks (needs `huggingface_hub`).
        token: access token, for models that are not public; None: what `hf auth login` stored.

    Raises:
        CheckpointError: there is no such model, it has no weights, or they are damaged.
    """
    notes: tuple[str, ...] = ()
    try:
        if download and not Path(name_or_path).expanduser().is_dir():
            folder = _download(os.fspath(name_or_path), revision, token)
        else:
            folder = pretrained_folder(name_or_path, revision)
        store = LocalStore(folder)
        adapter = _adapter(folder, store)
        if adapter and not _weights(store):
            raise CheckpointError(
                f"{adapter}; load that model with it in peft, merge it (`merge_and_unload`), save "
                "it with `save_pretrained` and convert that"
            )
        config = read_config_json(folder)
    except (FileNotFoundError, ValueError) as error:
        raise CheckpointError(str(error)) from error
    if adapter:
        notes += (f"{adapter}; the model beside it is taken without it",)
    found = _weights(store)
    if found is None:
        raise CheckpointError(_others(folder, store))
    (kind, single, read), several = found
    if not several:
        return Pretrained(folder, config, read(store, single), kind, notes=notes)
    tensors, count, slips = indexed_tensors(store, f"{single}{INDEX}", read)
    if wrong := [slip for name, slip in slips.items() if not may_be_missing(name)]:
        raise CheckpointError("\n  ".join(wrong[:20]))
    return Pretrained(folder, config, tensors, f"{kind} in {count} files", slips, notes)


def _weights(store: Store) -> tuple[Kind, bool] | None:
    """The format of the weights, and whether they are in several files; None if there are none."""
    for kind in KINDS:
        if store.exists(kind[1]):
            return kind, False
        if store.exists(f"{kind[1]}{INDEX}"):
            return kind, True
    return None


def _others(folder: Path, store: Store) -> str:
    """Describe what the folder has in place of weights that can be read, for the error."""
    names = store.children()
    shards = [found for name in names if (found := SHARD.fullmatch(name))]
    if shards:
        kind, count = shards[0]["kind"], int(shards[0]["count"])
        return (
            f"{folder}: {shards[0]['stem']}{kind}{INDEX} is missing, which says what lies in which "
            f"of the {count} files ({len(shards)} are here). Download all files of the model, or "
            "save it anew with `save_pretrained` of transformers."
        )
    found = [
        name
        for name in names
        if name.endswith((".bin", ".safetensors", ".gguf", ".h5", ".msgpack", ".pth", ".pt"))
    ]
    missing = f"{folder}: has neither {SINGLE} nor {SINGLE}{INDEX}"
    if not found:
        return f"{missing}; the weights are missing, download all files of the model"
    return (
        f"{missing}; it holds {', '.join(found[:5])}, which are not read. Save the model with "
        "`save_pretrained` of transformers, which writes safetensors."
    )


def _adapter(folder: Path, store: Store) -> str | None:
    """A sentence on an adapter of peft in the folder; None if there is none."""
    names = [name for name in store.children() if ADAPTER.fullmatch(name)]
    if not names:
        return None
    base, kind = None, None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        about = json.loads((folder / ADAPTER_CONFIG).read_text())
        base, kind = about.get("base_model_name_or_path"), about.get("peft_type")
    of = f" for the model {base}" if base else ""
    kind = "LoRA" if kind in (None, "LORA") else kind
    return f"{folder}: {names[0]} is an adapter ({kind} of peft){of}"


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
