"""Whose items a file of embeddings has."""

import json
import os
from pathlib import Path

from efficientids_flax.core.vectors import read_vectors
from efficientids_flax.data.prepared.manifest import check_catalogue
from efficientids_flax.prepared_format import CATALOGUE


def check_vectors(
    path: str | os.PathLike[str], where: str, catalogue: str | None, num_items: int
) -> None:
    """Raise if a file is of another catalogue than the data.

    Args:
        path: of embeddings; the `.json` beside it may say of which catalogue they are.
        where: the data.
        catalogue: its digest; None: not known.
        num_items: I of the data.

    Raises:
        ValueError: naming both.
    """
    file = Path(path)
    about = file.with_suffix(".json")
    theirs = None
    if about.is_file():
        try:
            theirs = json.loads(about.read_text(encoding="utf-8")).get(CATALOGUE)
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{about}: is no JSON object: {error}") from error
    items = len(read_vectors(file))
    check_catalogue(str(file), theirs, items, where, catalogue, num_items)
