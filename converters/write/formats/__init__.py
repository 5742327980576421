"""The formats in which an output can be written, behind one small protocol, `Sink`.

Read `sink`, then `orbax` and `safetensors`.
"""

from converters.write.formats.orbax import OrbaxSink
from converters.write.formats.safetensors import DTYPES, SHARD, SafetensorsSink
from converters.write.formats.sink import Sink, Tile
