"""Readers of the forms in which PAXml stores a state: zarr directories, OCDBT, FLAX msgpack."""
