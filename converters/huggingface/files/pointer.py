"""What lies in a file's place where it was never fetched: a pointer of Git LFS."""

from converters.errors import CheckpointError
from converters.stores import Store

BEGINNING = b"version https://git-lfs.github.com/"


def refuse_pointer(store: Store, key: str) -> None:
    """Raise `CheckpointError` where a file is but the pointer that Git LFS keeps of it."""
    if store.read(key, 0, len(BEGINNING)) == BEGINNING:
        raise CheckpointError(
            f"{store.url}/{key}: is a pointer of Git LFS, the weights themselves were not fetched; "
            "run `git lfs pull` in that folder, or download the model with `hf download`"
        )
