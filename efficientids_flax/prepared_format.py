"""The format of a prepared directory: `prepare` writes it, `data` reads it.

It imports nothing large, so that `efficientids prepare` starts without jax.
"""

import re
from typing import Literal

MANIFEST = "manifest.json"  # written last: a directory without it is incomplete
FORMAT, VERSION = "efficientids-data", 1
CATALOGUE = "catalogue"  # key of the digest of the items' raw ids in the manifest
ITEMS, USERS = "items.parquet", "users.parquet"
SHARD = re.compile(r"interactions-(\d{5})-of-(\d{5})\.parquet")

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")  # in the order of time
TRAIN, VALID, TEST = range(3)  # values of the column `split`: index in `SPLITS`

# fmt: off
COLUMNS = {
    # table          column -> name of its Arrow type
    "interactions": {"user": "int32", "item": "int32", "time": "int64", "rating": "float",
                     "split": "int8"},
    "items":        {"item": "int32", "id": "string", "title": "string", "text": "string",
                     "count": "int32", "cold": "bool"},
    "users":        {"user": "int32", "id": "string", "count": "int32"},
}
# fmt: on
OPTIONAL = {"time", "rating", "title", "text"}  # not in every directory


def shard_name(index: int, total: int) -> str:
    """Name of a file of interactions, see `SHARD`."""
    return f"interactions-{index:05}-of-{total:05}.parquet"
