"""Runs described in a file: which model, which data, built from names and paths.

model: {kind: simple, item_embedding_dim: 64, model_dims: 64}        # see `model_section`
data: {dir: data/ml1m_processed, batch_size: 64}
optimizer: {learning_rate: 1e-3}
training: {num_steps: 1000}
checkpoint: {dir: runs/first}
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from efficientids_flax.config.parts import positive
from efficientids_flax.config.record import Record
from efficientids_flax.data.files import DataDirectory, read_data
from efficientids_flax.train.batches import ShuffledBatches
from efficientids_flax.train.run.config import SECTIONS, plain, run_config
from efficientids_flax.train.run.model_section import ModelSection, imported


@dataclass(frozen=True)
class DataSection(Record):
    """Prepared data.

    Attributes:
        dir: see `data.files`.
        batch_size: rows of a step, of all processes together.
        seed: of the order.
    """

    dir: str
    batch_size: int = 64
    seed: int = 0

    def problems(self) -> Collection[str]:
        """The size is positive."""
        return positive(self, "batch_size")


def built(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with modules and batches in place of names and paths.

    One that has `model.module` and `data.train_iter_fn` already stays as it is.

    Raises:
        ValueError: listing all that is wrong with the sections.
        FileNotFoundError: a directory that is not there.
    """
    made = plain(config)
    model, data = made.get("model") or {}, made.get("data") or {}
    for name, section in (("model", model), ("data", data)):
        if not isinstance(section, Mapping):
            raise ValueError(f"{name}: expected a section, found {section!r}")
    problems: list[str] = []
    reads = not set(data) & set(SECTIONS["data"])
    source = _tried(problems, "data", DataSection.from_dict, data) if reads else None
    section = None
    if "module" not in model:
        section = _tried(problems, "model", ModelSection.from_dict, model)
    if isinstance(name := made.get("loss_fn"), str):
        made["loss_fn"] = _tried(problems, "loss_fn", imported, name)
    others = {**made, "model": {"module": None}, "data": {"train_iter_fn": None}}
    _tried(problems, "", run_config, others)
    if problems:
        raise ValueError("\n".join(problems))
    directory = DataDirectory()
    if source is not None:
        directory = read_data(source.dir)
        made["data"] = {**_batches(directory, source), "items": directory.items}
    if section is not None:
        made["model"] = _tried(problems, "model", section.made, directory.clustering)
    if problems:
        raise ValueError("\n".join(problems))
    return made


def _tried(problems: list[str], name: str, make: Callable[[Any], Any], given: Any) -> Any:
    """What is made of a section, None with a problem more if it is wrong."""
    try:
        return make(given)
    except ValueError as error:
        problems.append(f"{name}: {error}" if name else str(error))


def _batches(directory: DataDirectory, section: DataSection) -> dict[str, Any]:
    count = jax.process_count()
    if section.batch_size % count:
        raise ValueError(
            f"data.batch_size: {section.batch_size} does not divide among {count} processes"
        )
    size, process = section.batch_size // count, (jax.process_index(), count)
    made = {}
    for split, arrays in directory.splits.items():
        trains = split == "train"
        rows = len(next(iter(arrays.values()))) // count
        made[f"{split}_iter_fn"] = ShuffledBatches(
            arrays,
            size if trains else max(1, min(size, rows)),
            seed=section.seed,
            shuffle=trains,
            drop_remainder=trains,
            epochs=None if trains else 1,
            process=process,
        )
    return made
