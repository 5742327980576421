"""Reads what PAXml wrote about the job beside its checkpoint, and what rule tables need of it."""

from collections.abc import Mapping
from typing import Any

from converters.paxml import Checkpoint
from converters.paxml.infer import open_dump, read_hparams, templates
from converters.rules import Said
from converters.stores import Store, open_store

HEADS = ("num_heads", "backbone.num_heads")


def said_heads(dump: Mapping[str, Any] | None, overrides: Mapping[str, Any]) -> Said:
    """What the job's dump and the user say about attention heads, which shapes cannot tell."""
    given = next((str(overrides[key]) for key in HEADS if key in overrides), "")
    count, nhd = int(given) if given.isdecimal() else None, None
    if dump is not None:
        opened = open_dump(dump)
        count = count or opened.size("{stack}.num_heads") or None
        nhd = opened.get("{atten}.output_proj_use_nhd_shape", False) is True
    return Said(count, nhd, 1 if dump is None else templates(dump))


def job_dump(checkpoint: Checkpoint, job_files: str | None) -> dict[str, Any] | None:
    """PAXml's own description of the job; None if there is none."""
    place: Store | None = checkpoint.job_files if job_files is None else open_store(job_files)
    return None if place is None else read_hparams(place)
