"""Finds a pretrained model on this machine, by folder or by name in the HuggingFace cache.

The cache has the layout of `huggingface_hub`, which is not needed to read it.
"""

import os
import re
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}")


def pretrained_folder(name_or_path: str | os.PathLike[str], revision: str = "main") -> Path:
    """The folder that holds a model's files.

    Args:
        name_or_path: a folder, or `NAME` or `OWNER/NAME` of a model in the cache.
        revision: branch, tag or commit of a cached model.

    Raises:
        FileNotFoundError: neither exists; the message says where it was searched.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise FileNotFoundError(f"{folder}: is a file; give the folder that holds config.json")
    name, cache = os.fspath(name_or_path), hub_cache()
    places = cache / f"models--{name.replace('/', '--')}"
    if not places.is_dir():
        raise FileNotFoundError(
            f"{name}: no such folder, and no model of that name in the cache {cache}; download it "
            f"with `hf download {name}`"
        )
    reference = places / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = places / "snapshots" / commit
    if not (_COMMIT.fullmatch(commit) and snapshot.is_dir()):
        raise FileNotFoundError(
            f"{name}: the cache {cache} has no revision '{revision}'; download it with "
            f"`hf download {name} --revision {revision}`"
        )
    return snapshot


def hub_cache() -> Path:
    """The folder of the cache, from the environment variables of `huggingface_hub`."""
    variables = os.environ
    home = Path(variables.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    home = Path(variables.get("HF_HOME") or home)
    cache = variables.get("HF_HUB_CACHE") or variables.get("HUGGINGFACE_HUB_CACHE") or home / "hub"
    return Path(cache).expanduser()
