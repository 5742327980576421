"""Detects the pointers that Git LFS leaves in place of files that were not fetched."""

from converters.errors import CheckpointError
from converters.stores import Store

BEGINNING = b"version https://git-lfs.github.com/"


def refuse_pointer(store: Store, key: str) -> None:
    """Raise `CheckpointError` if the file is only a pointer of Git LFS."""
    if store.read(key, 0, len(BEGINNING)) == BEGINNING:
        raise CheckpointError(
            f"{store.url}/{key}: is a pointer of Git LFS, the weights themselves were not fetched; "
            "run `git lfs pull` in that folder, or download the model with `hf download`"
        )
