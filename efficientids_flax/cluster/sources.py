"""Finds item vectors: in a file, a prepared directory, or a model's item table.

Letters: I items, E item width.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

EMBEDDINGS, CLUSTERING = "embeddings.npy", "clustering.npz"


@dataclass(frozen=True)
class Source:
    """What is to be clustered.

    Attributes:
        num_items: I.
        embeddings: float32 [I, E]; None if there are none.
        ranks: int [I], 0 for the most frequent item; None: not requested.
        catalogue: digest of the item ids; None: unknown.
        name: where the vectors or items come from, for messages.
    """

    num_items: int
    embeddings: np.ndarray | None
    ranks: np.ndarray | None
    catalogue: str | None
    name: str


def of_items(items: int) -> Source:
    """A number of items about which nothing else is known."""
    return Source(items, None, None, None, f"{items} items")


def of_file(path: str | os.PathLike[str]) -> Source:
    """Embeddings of a `.npy` or the original's text file; a `.json` beside names the catalogue.

    Raises:
        FileNotFoundError, ValueError: see `read_vectors`.
    """
    from efficientids_flax.core.vectors import read_vectors

    found = read_vectors(path)
    return Source(len(found), found, None, _said(Path(path)), os.fspath(path))


def of_directory(
    path: str | os.PathLike[str],
    embeddings: str | os.PathLike[str] | None = None,
    *,
    by_count: bool = False,
) -> Source:
    """A prepared directory, with embeddings from it or from another file.

    Args:
        path: an output directory of `prepare`.
        embeddings: file of embeddings; None: `embeddings.npy` in the directory, if it exists.
        by_count: rank items by their count in the training split, equal counts by item number;
            otherwise there are no ranks.

    Raises:
        FileNotFoundError: no prepared directory, or no file of embeddings.
        ValueError: the embeddings belong to another catalogue.
        ImportError: pyarrow is missing.
    """
    from efficientids_flax.core.vectors import read_vectors
    from efficientids_flax.data.prepared import check_vectors, open_prepared

    prepared = open_prepared(path)
    file = Path(path) / EMBEDDINGS if embeddings is None else Path(embeddings)
    found = None
    if embeddings is not None or file.is_file():
        check_vectors(file, os.fspath(path), prepared.manifest.catalogue, prepared.num_items)
        found = read_vectors(file)
    ranks = None
    if by_count:
        counts = np.asarray(prepared.items["count"])
        ranks = np.empty(len(counts), np.int64)
        ranks[np.argsort(-counts.astype(np.int64), kind="stable")] = np.arange(len(counts))
    name = path if embeddings is None else embeddings
    return Source(prepared.num_items, found, ranks, prepared.manifest.catalogue, os.fspath(name))


def of_model(path: str | os.PathLike[str]) -> Source:
    """The item table of a converted or exported recommender; reads no other parameter.

    Raises:
        FileNotFoundError, ValueError: there is no model, or it has no items.
    """
    from efficientids_flax.config import EfficientIDSConfig
    from efficientids_flax.stored import clustering_of, load_config, read_parameter

    config = load_config(path).model
    if not isinstance(config, EfficientIDSConfig):
        raise ValueError(f"{path}: is no recommender; it has no items to cluster")
    catalogue = None
    if not config.full_softmax:
        try:
            catalogue = clustering_of(path).catalogue
        except FileNotFoundError:  # a conversion, whose clustering is elsewhere
            catalogue = None
    table = np.asarray(read_parameter(path, "item_embedding/kernel")).astype(np.float32).T
    return Source(len(table), np.ascontiguousarray(table), None, catalogue, os.fspath(path))


def _said(path: Path) -> str | None:
    """The catalogue digest in the `.json` beside a file; None if there is none."""
    about = path.with_suffix(".json")
    if not about.is_file():
        return None
    try:
        return json.loads(about.read_text(encoding="utf-8")).get("catalogue")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{about}: is no JSON object: {error}") from error
