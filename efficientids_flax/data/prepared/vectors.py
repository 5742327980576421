"""Check which catalogue a file of embeddings belongs to."""

import json
import os
from pathlib import Path

from efficientids_flax.core.vectors import read_vectors
from efficientids_flax.data.prepared.manifest import check_catalogue
from efficientids_flax.prepared_format import CATALOGUE


def check_vectors(
    path: str | os.PathLike[str], where: str, catalogue: str | None, num_items: int
) -> None:
    """Raise if embeddings belong to another catalogue than the data's.

    Args:
        path: file of embeddings; a `.json` beside it may contain the digest of their catalogue.
        where: path of the data.
        catalogue: digest of the data's catalogue; None: unknown.
        num_items: I of the data.

    Raises:
        ValueError: the catalogues differ; names both.
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
