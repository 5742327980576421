"""Runs described in a file: which model, which data, built from names and paths.

model: {kind: simple, item_embedding_dim: 64, model_dims: 64}
data: {dir: data/ml1m_processed, batch_size: 64}
optimizer: {learning_rate: 1e-3}
training: {num_steps: 1000}
checkpoint: {dir: runs/first}
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax

from efficientids_flax.config.parts import positive
from efficientids_flax.config.record import Record
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.core.simple_model import SimpleEfficientIDSModel
from efficientids_flax.data.files import DataDirectory, read_data
from efficientids_flax.train.batches import ShuffledBatches
from efficientids_flax.train.run_config import SECTIONS, plain


@dataclass(frozen=True)
class ModelSection(Record):
    """A model by its name.

    Attributes:
        kind: 'simple' (`SimpleEfficientIDSModel`) or 'efficientids' (`EfficientIDSModel`).
        model_name, freeze_lm: of 'efficientids'.
        model_dims, num_layers, num_heads, hidden_dims, dropout, full_softmax: of 'simple'.
        num_items, num_clusters: None: the clustering's.
        Others as in the models.
    """

    kind: Literal["simple", "efficientids"] = "simple"
    num_items: int | None = None
    num_clusters: int | None = None
    item_embedding_dim: int = 384
    item_embedding_init: str | None = None
    use_correction: bool = False
    model_name: str | None = None
    freeze_lm: bool = False
    model_dims: int = 512
    num_layers: int = 2
    num_heads: int = 8
    hidden_dims: int | None = None
    dropout: float = 0.0
    full_softmax: bool = False

    def problems(self) -> Collection[str]:
        """A name where there must be one."""
        found = positive(self, "num_items", "num_clusters", "item_embedding_dim", "model_dims")
        if self.kind == "efficientids" and self.model_name is None:
            found.append("model_name: missing, kind is 'efficientids'")
        return found

    def module(self, clustering: ClusteringInfo | None) -> Any:
        """The module.

        Raises:
            ValueError: neither the clustering nor the section says how many items there are.
        """
        items = self.num_items or (clustering.num_items if clustering else None)
        if items is None:
            raise ValueError("model.num_items: missing, and the data has no clustering to count")
        shared = {
            "num_items": items,
            "num_clusters": self.num_clusters,
            "item_embedding_dim": self.item_embedding_dim,
            "clustering_info": clustering,
            "use_correction": self.use_correction,
            "item_embedding_init": self.item_embedding_init,
        }
        if self.kind == "efficientids":
            return EfficientIDSModel(model_name=self.model_name, freeze_lm=self.freeze_lm, **shared)
        if self.full_softmax:
            shared |= {"clustering_info": None, "num_clusters": None}
        return SimpleEfficientIDSModel(
            model_dims=self.model_dims,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            hidden_dims=self.hidden_dims,
            dropout=self.dropout,
            full_softmax=self.full_softmax,
            **shared,
        )


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
        ValueError, FileNotFoundError: a section or a directory that is wrong.
    """
    made = plain(config)
    model, data = made.get("model") or {}, made.get("data") or {}
    directory = DataDirectory()
    if not set(data) & set(SECTIONS["data"]):
        section = _section(DataSection, "data", data)
        directory = read_data(section.dir)
        made["data"] = _batches(directory, section)
    if "module" not in model:
        section = _section(ModelSection, "model", model)
        made["model"] = {"module": section.module(directory.clustering)}
    return made


def _section(kind: type[Any], name: str, values: Mapping[str, Any]) -> Any:
    try:
        return kind.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


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
            min(size, rows),
            seed=section.seed,
            shuffle=trains,
            drop_remainder=trains or count > 1,
            epochs=None if trains else 1,
            process=process,
        )
    return made
