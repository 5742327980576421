"""Zarr arrays, version 2 and 3: where their chunks are, and how values are decoded from them.

PAXml's zarr directories and OCDBT databases both hold such arrays. Read `metadata`, `codec` and
`array` first, then `readers`; `leaf` opens an array.
"""

from converters.zarr.codec import ZSTD_LEVEL, Codec, CodecError
from converters.zarr.leaf import ZarrLeaf
from converters.zarr.metadata import dtype_named
