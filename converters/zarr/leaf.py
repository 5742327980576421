"""Leaves stored as zarr arrays, in PAXml's zarr directories or inside its OCDBT databases."""

import json
import operator
from collections.abc import Collection

import numpy as np

from converters.arrays import LeafSpec, whole
from converters.errors import CheckpointError
from converters.stores import MissingKeyError, Store
from converters.zarr.array import ZarrArray
from converters.zarr.metadata import parse_v2, parse_v3
from converters.zarr.readers import TensorStoreReader, ZarrReader


class ZarrLeaf(ZarrArray):
    """A zarr v2 or v3 array that can be read in parts."""

    @classmethod
    def open(
        cls,
        path: str,
        store: Store,
        prefix: str,
        *,
        shape: tuple[int, ...] | None = None,
        declared_dtype: np.dtype | None = None,
        keys: Collection[str] | None = None,
    ) -> "ZarrLeaf":
        """Describe the array in directory `prefix` of `store`.

        Args:
            path: canonical path of the leaf.
            store: the store of the checkpoint.
            prefix: directory of the array.
            shape: its shape without padding, if known.
            declared_dtype: its dtype in PAXml's metadata, if it has one.
            keys: names of the files below `prefix`, if they are listed already.

        Raises:
            CheckpointError: there is no array, its metadata cannot be read, or chunks are missing.
        """
        place = store.child(prefix)
        try:
            found = json.loads(place.read(".zarray"))
            version = 2
        except MissingKeyError:
            try:
                found, version = json.loads(place.read("zarr.json")), 3
            except MissingKeyError as error:
                raise CheckpointError(
                    f"{path}: {place.url} has no .zarray (nor zarr.json); the array cannot be read "
                    "without it. Copy the checkpoint again."
                ) from error
            except ValueError as error:
                raise CheckpointError(
                    f"{path}: {place.url}/zarr.json is not JSON: {error}"
                ) from error
        except ValueError as error:
            raise CheckpointError(f"{path}: {place.url}/.zarray is not JSON: {error}") from error
        try:
            parse = parse_v2 if version == 2 else parse_v3
            fields = parse(found)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: the metadata of {place.url} is not that of zarr v{version}: {error}"
            ) from error
        stored_shape = fields.pop("shape")
        dtype = fields.pop("dtype")
        if shape is not None and (
            len(shape) != len(stored_shape) or any(map(operator.gt, shape, stored_shape))
        ):
            raise CheckpointError(
                f"{path}: {place.url} holds shape {list(stored_shape)}, "
                f"the metadata says {list(shape)}"
            )
        spec = LeafSpec(
            path,
            stored_shape if shape is None else shape,
            dtype,
            stored_shape,
            prefix,
            declared_dtype,
        )
        leaf = cls(spec, store=place, **fields)
        if keys is not None and version == 2:
            leaf.check_chunks(keys)
        return leaf

    def reader(self, limit: int) -> ZarrReader | TensorStoreReader:
        """See `Leaf.reader`."""
        if self.codec is None:
            return TensorStoreReader(self)
        return ZarrReader(self, limit)

    def read(self) -> np.ndarray:
        """See `Leaf.read`."""
        return self.reader(1 << 62).read(whole(self.spec.shape))
