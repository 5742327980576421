"""Readers of the forms in which PAXml stores a state: zarr directories, OCDBT, FLAX msgpack.

Read `contents` first, the result of each reader, then the readers `zarr`, `ocdbt` and `flax`. The
other modules find the leaves and name them: `listing`, `tree`, `positional`, `treedef`, `msgpack`.
"""

from converters.paxml.sources.contents import Contents, with_spec
from converters.paxml.sources.flax import read_flax
from converters.paxml.sources.listing import Listing, ancestors, parent
from converters.paxml.sources.ocdbt import read_ocdbt
from converters.paxml.sources.zarr import read_zarr
