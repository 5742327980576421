"""Which cluster each item is in, and where: the tables of the hierarchical softmax.

    ClusteringInfo.from_pickle("clustering.pkl").save("clustering.npz")  # once
    ClusteringInfo.from_file("clustering.npz")                           # from then on

Dimensions: I items, K clusters, M slots per cluster (its largest cluster's size), E item-embedding
width.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from efficientids_flax.core.clustering.checks import ClusteringError, find_problems
from efficientids_flax.core.clustering.files import read_tables, write_pickles, write_tables
from efficientids_flax.core.clustering.pickles import ArrayPickleError, read_array_pickles
from efficientids_flax.digests import digest, digest_of

__all__ = ["ClusteringError", "ClusteringInfo"]

PADDING = -1
# The original's names for the four tables, in the order in which it pickles them.
PICKLED = ("cluster_assignments", "cluster_indices", "in_cluster_id", "cluster_means")
FIELDS = ("cluster_of", "members", "slot_of", "means")
MAX_TABLE_BYTES = (
    8 << 30
)  # of `members`; only a hugely lopsided clustering of many items needs more.


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ClusteringInfo:
    """A partition of the items into clusters: every item in exactly one, no cluster empty.

    The tables are checked against each other at construction, then kept read-only, in C order.

    Instances compare and hash by identity (`eq=False`): a Flax module that has one as an attribute
    must be hashable to be a static argument of `jax.jit`, and comparing arrays gives arrays. So
    load a file once and share the instance; a second load of the same file counts as another
    clustering and compiles again.

    Attributes:
        cluster_of: [I] int32, the cluster of each item (the original's `cluster_assignments`).
        members: [K, M] int32, the items of each cluster, then -1 to the row's end
            (`cluster_indices`).
        slot_of: [I] int32, members[cluster_of[i], slot_of[i]] == i (`in_cluster_id`).
        means: [K, E] float32 or float64, the clusters' fixed embeddings (`cluster_means`), or None.
            Narrower floats are widened to float32, which is exact.
        catalogue: digest of the catalogue of these items, see `data`; None: unknown. `digest` does
            not include it.

    Raises:
        ClusteringError: the tables do not fit together; lists every problem, with the wrong items.
    """

    cluster_of: np.ndarray
    members: np.ndarray
    slot_of: np.ndarray
    means: np.ndarray | None = None
    catalogue: str | None = None

    def __post_init__(self) -> None:
        cluster_of, members, slot_of = map(
            np.asarray, (self.cluster_of, self.members, self.slot_of)
        )
        means = None if self.means is None else np.asarray(self.means)
        problems = find_problems(cluster_of, members, slot_of, means)
        if problems:
            raise ClusteringError("\n  ".join(["The clustering tables are wrong:", *problems]))
        if members.min() < PADDING:  # the original also pads with -2147483648
            members = np.maximum(members, PADDING)
        if means is not None and means.dtype.itemsize < np.dtype(np.float32).itemsize:
            means = means.astype(np.float32)
        object.__setattr__(self, "cluster_of", _frozen(cluster_of, np.int32))
        object.__setattr__(self, "members", _frozen(members, np.int32))
        object.__setattr__(self, "slot_of", _frozen(slot_of, np.int32))
        if means is not None:
            object.__setattr__(self, "means", _frozen(means, means.dtype.newbyteorder("=")))

    def __repr__(self) -> str:
        return f"ClusteringInfo({self.summary()})"

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.cluster_of)

    @property
    def num_clusters(self) -> int:
        """K."""
        return self.members.shape[0]

    @property
    def max_cluster_size(self) -> int:
        """M, the slots that every cluster has."""
        return self.members.shape[1]

    def digest(self) -> str:
        """A digest of the tables' content."""
        return digest_of({name: digest(table) for name, table in self._tables().items()})

    def summary(self) -> str:
        """One line for people: items, clusters, their sizes, means."""
        sizes = np.count_nonzero(self.members >= 0, axis=1)
        means = "no means"
        if self.means is not None:
            means = f"means {list(self.means.shape)} {self.means.dtype}"
        return (
            f"{self.num_items} items in {self.num_clusters} clusters "
            f"of {sizes.min()} to {sizes.max()}, {means}"
        )

    @classmethod
    def from_pickle(cls, path: str | os.PathLike[str]) -> ClusteringInfo:
        """Reads the original's file: four pickles of NumPy or JAX arrays; the last may be None.

        No code in the file is run, see `clustering.pickles`.

        Raises:
            ClusteringError: the file is missing, damaged, holds anything but the four arrays, or
                the tables are wrong.
        """
        try:
            arrays = read_array_pickles(path, PICKLED)
        except ArrayPickleError as error:
            raise ClusteringError(str(error)) from error
        missing = [
            f"pickle {number} ({PICKLED[number - 1]})"
            for number, array in enumerate(arrays[:-1], start=1)
            if array is None
        ]
        if missing:
            raise ClusteringError(
                f"{path}: {' and '.join(missing)} holds None, expected an array; "
                "only cluster_means may be None."
            )
        return _named(path, dict(zip(FIELDS, arrays, strict=True)))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> ClusteringInfo:
        """Reads a .npz or .safetensors file that `save` or `convert-clustering` wrote.

        Raises:
            ClusteringError: the file is missing, damaged or of another kind, or the tables are
                wrong.
            ImportError: a .safetensors file without the safetensors package.
        """
        tables, catalogue = read_tables(path)
        return _named(path, {**tables, "catalogue": catalogue})

    @classmethod
    def from_assignments(
        cls,
        cluster_of: ArrayLike,
        means: ArrayLike | None = None,
        *,
        catalogue: str | None = None,
    ) -> ClusteringInfo:
        """Builds the other tables from each item's cluster; members stand in order of their ids.

        Args:
            cluster_of: [I] integers from 0, without gaps.
            means: [K, E] floats or None.
            catalogue: see the class.

        Raises:
            ClusteringError: a cluster is negative or empty, or the tables would not fit memory.
        """
        clusters = np.asarray(cluster_of)
        if clusters.ndim != 1 or clusters.dtype.kind not in "iu" or not clusters.size:
            raise ClusteringError(
                f"cluster_of is {list(clusters.shape)} of {clusters.dtype}, "
                "expected [I] integers, I > 0."
            )
        lowest, highest = int(clusters.min()), int(clusters.max())
        if lowest < 0 or highest >= clusters.size:
            wrong = int(clusters.argmin() if lowest < 0 else clusters.argmax())
            raise ClusteringError(
                f"cluster_of: item {wrong} has cluster {clusters[wrong]}; {clusters.size} items "
                f"fill at most clusters 0 to {clusters.size - 1} (number them without gaps)."
            )
        sizes = np.bincount(clusters.astype(np.intp))  # [K]
        shape = (len(sizes), int(sizes.max()))
        table_bytes = shape[0] * shape[1] * np.dtype(np.int32).itemsize
        if table_bytes > MAX_TABLE_BYTES:
            raise ClusteringError(
                f"cluster_of: cluster {sizes.argmax()} has {shape[1]} of {clusters.size} items, "
                f"which makes members {list(shape)}, {table_bytes / 2**30:.0f} GiB; "
                "split the largest clusters."
            )
        order = np.argsort(clusters, kind="stable")  # [I] items, cluster by cluster
        first = np.cumsum(sizes) - sizes  # [K] where each cluster begins in `order`
        slot_of = np.empty(clusters.size, np.int32)
        slot_of[order] = np.arange(clusters.size) - np.repeat(first, sizes)
        members = np.full(shape, PADDING, np.int32)
        members[clusters, slot_of] = np.arange(clusters.size)
        vectors = None if means is None else np.asarray(means)
        return cls(clusters, members, slot_of, vectors, catalogue)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the tables to a .npz or .safetensors file, which appears when it is complete.

        Raises:
            ValueError: another suffix.
            FileExistsError: the file exists and `overwrite` is false.
            ImportError: .safetensors without the safetensors package.
            OSError: the file cannot be written.
        """
        write_tables(path, self._tables(), catalogue=self.catalogue, overwrite=overwrite)

    def save_pickle(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the original's file: four pickles of plain NumPy arrays, the last may be None.

        `from_pickle` reads it, and so does the original, by calling `pickle.load` four times. The
        digest of the catalogue is not stored.

        Raises:
            FileExistsError: the file exists and `overwrite` is false.
            OSError: the file cannot be written.
        """
        write_pickles(path, [getattr(self, name) for name in FIELDS], overwrite=overwrite)

    def _tables(self) -> Mapping[str, np.ndarray]:
        tables = {name: getattr(self, name) for name in FIELDS}
        return {name: table for name, table in tables.items() if table is not None}


def _named(path: str | os.PathLike[str], tables: Mapping[str, Any]) -> ClusteringInfo:
    """The clustering of these tables; errors name the file they came from."""
    try:
        return ClusteringInfo(**tables)
    except ClusteringError as error:
        raise ClusteringError(f"{path}: {error}") from error


def _frozen(table: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """A read-only, C-ordered array: the given one if it is that already, else a copy."""
    if table.flags.writeable or table.dtype != dtype or not table.flags.c_contiguous:
        table = np.array(table, dtype, order="C")
    table.flags.writeable = False
    return table
