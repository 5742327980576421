"""Zarr arrays, version 2 and 3: how their chunks lie, and how values are decoded from them.

PAXml's zarr directories and OCDBT databases both hold such arrays. Read `metadata`, `codec`,
`array`, then the cursors in `readers`; `leaf` opens one.
"""

from converters.zarr.codec import ZSTD_LEVEL, Codec, CodecError
from converters.zarr.leaf import ZarrLeaf
from converters.zarr.metadata import dtype_named
