"""The formats of an output: one small protocol, `Sink`, and what implements it.

Read `sink`, then `orbax` and `safetensors`.
"""

from converters.write.formats.orbax import OrbaxSink
from converters.write.formats.safetensors import DTYPES, SHARD, SafetensorsSink
from converters.write.formats.sink import Sink, Tile
