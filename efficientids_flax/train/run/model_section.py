"""The `model` section of a configuration file: the module and its initial parameters, by `kind`.

model: {kind: simple, item_embedding_dim: 64, model_dims: 64}
model: {kind: converted, path: OUT}
model: {kind: factory, factory: "package.module:function", options: {...}}
"""

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Protocol

from flax import linen as nn

from efficientids_flax.config import EfficientIDSConfig, OptimizerConfig, SampledSoftmaxConfig
from efficientids_flax.config.record import Record, positive, unknown_key
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.core.simple_model import SimpleEfficientIDSModel
from efficientids_flax.stored import clustering_of, load_config

Clustering = ClusteringInfo | None


class Section(Protocol):
    """One kind of model."""

    def made(self, clustering: Clustering) -> dict[str, Any]:
        """The `model` section of `train`: `module`, and optionally `params` or `converted`.

        Args:
            clustering: clustering of the data; None: it has none.

        Raises:
            ValueError, FileNotFoundError: something is wrong or missing.
        """
        ...


@dataclass(frozen=True)
class SimpleSection(Record):
    """`SimpleEfficientIDSModel`; other attributes as there.

    Attributes:
        num_items, num_clusters: None: those of the clustering.
    """

    num_items: int | None = None
    num_clusters: int | None = None
    item_embedding_dim: int = 384
    item_embedding_init: str | None = None
    use_correction: bool = False
    model_dims: int = 512
    num_layers: int = 2
    num_heads: int = 8
    hidden_dims: int | None = None
    dropout: float = 0.0
    full_softmax: bool = False
    sampled_softmax: SampledSoftmaxConfig | None = None

    def problems(self) -> Collection[str]:
        """Sizes are positive."""
        return positive(self, "num_items", "num_clusters", "item_embedding_dim", "model_dims",
                        "num_layers", "num_heads", "hidden_dims")  # fmt: skip

    def made(self, clustering: Clustering) -> dict[str, Any]:
        """See `Section`."""
        given = {**self.to_dict(), "num_items": _items(self.num_items, clustering)}
        given["sampled_softmax"] = self.sampled_softmax
        if self.full_softmax:
            clustering, given["num_clusters"] = None, None
        return {"module": SimpleEfficientIDSModel(clustering_info=clustering, **given)}


@dataclass(frozen=True)
class NamedSection(Record):
    """`EfficientIDSModel` with a language model's configuration; all weights are random."""

    model_name: str
    num_items: int | None = None
    num_clusters: int | None = None
    item_embedding_dim: int = 384
    item_embedding_init: str | None = None
    use_correction: bool = False
    freeze_lm: bool = False

    def problems(self) -> Collection[str]:
        """Sizes are positive, and nothing random is frozen."""
        found = positive(self, "num_items", "num_clusters", "item_embedding_dim")
        if not self.freeze_lm:
            return found
        return [
            *found,
            "freeze_lm: true would keep random weights, as only the configuration of model_name is "
            "read; for its weights take kind: factory, "
            "factory: converters.recommender:load_recommender",
        ]

    def made(self, clustering: Clustering) -> dict[str, Any]:
        """See `Section`."""
        given = {**self.to_dict(), "num_items": _items(self.num_items, clustering)}
        return {"module": EfficientIDSModel(clustering_info=clustering, **given)}


@dataclass(frozen=True)
class ConvertedSection(Record):
    """A model written by `convert-paxml` or `efficientids export`.

    Without an `optimizer` section, the run continues with PAXml's learner, its state and its step.

    Attributes:
        path: directory of the model.
        clustering: file of a recommender's clustering; None: that in the directory, or the data's.
        learner: values of `OptimizerConfig` that replace converted ones.
    """

    path: str
    clustering: str | None = None
    learner: Mapping[str, Any] = field(default_factory=dict)

    def made(self, clustering: Clustering) -> dict[str, Any]:
        """See `Section`."""
        from efficientids_flax.train.converted import module_of

        found = load_config(self.path)
        config = found.model
        if config is None:
            raise ValueError(f"path: {self.path} has no model that is known, only parameters")
        if self.learner:  # report errors before anything is loaded
            before = {} if found.optimizer is None else found.optimizer.to_dict()
            OptimizerConfig.from_dict({**before, **self.learner})
        tables = None
        if isinstance(config, EfficientIDSConfig) and not config.full_softmax:
            try:
                tables = clustering_of(self.path, self.clustering)
            except FileNotFoundError:
                if clustering is None or self.clustering is not None:
                    raise
                tables = clustering
        module = module_of(config, tables)
        return {"module": module, "converted": self.path, "learner": dict(self.learner)}


@dataclass(frozen=True)
class FactorySection(Record):
    """A function of the user.

    Attributes:
        factory: 'package.module:function'. It returns a Linen module, or (module, parameters), and
            is given the data's clustering if it takes a `clustering`.
        options: its other arguments.
    """

    factory: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def made(self, clustering: Clustering) -> dict[str, Any]:
        """See `Section`."""
        function = imported(self.factory)
        given = dict(self.options)
        takes = inspect.signature(function).parameters
        if "clustering" in takes:
            given.setdefault("clustering", clustering)
        takes_all = any(taken.kind is taken.VAR_KEYWORD for taken in takes.values())
        wrong = [unknown_key(key, takes) for key in given if key not in takes and not takes_all]
        if wrong:
            raise ValueError(f"options: {'; '.join(wrong)}")
        found = function(**given)
        module, params = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
        if not isinstance(module, nn.Module):
            raise ValueError(
                f"factory: {self.factory} returned a {type(found).__name__}; expected a Linen"
                " module, or (module, parameters)"
            )
        return {"module": module} if params is None else {"module": module, "params": params}


class ModelSection:
    """Selects the section class by `kind`."""

    KINDS: ClassVar[Mapping[str, type[Any]]] = {
        "simple": SimpleSection,
        "efficientids": NamedSection,
        "converted": ConvertedSection,
        "factory": FactorySection,
    }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Section:
        """The section for `kind` (default 'simple').

        Raises:
            ValueError: the kind is unknown, or its values are wrong.
        """
        values = dict(values)
        kind = values.pop("kind", "simple")
        if kind not in cls.KINDS:
            raise ValueError(f"kind: found {kind!r}, there are {', '.join(cls.KINDS)}")
        return cls.KINDS[kind].from_dict(values)


def imported(name: str) -> Any:
    """The object that 'package.module:name' names.

    Raises:
        ValueError: it does not exist.
    """
    place, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"{name}: expected 'package.module:function'")
    try:
        return getattr(import_module(place), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name}: {error}; is its directory on PYTHONPATH?") from error


def _items(given: int | None, clustering: Clustering) -> int:
    items = given or (clustering.num_items if clustering is not None else None)
    if items is None:
        raise ValueError("num_items: missing, and the data has no clustering to count")
    return items
