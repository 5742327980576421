"""The Flax module of the head: item and cluster tables, and the adapters to the query's width.

    softmax = HierarchicalSoftmax(num_items, num_clusters, width, clustering_info=clustering)
    variables = softmax.init(key, hidden)
    log_probs = softmax.apply(variables, hidden)             # [..., I], rows sum to one
    loss = softmax.apply(variables, hidden, targets)["loss"]

Letters: D width of the hidden states, W of query and tables (D or E), E item width, V words, I
items, K clusters; `...` any leading axes, mostly B batch and T time.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from efficientids_flax.config import AdapterConfig
from efficientids_flax.config.recommender import HeadConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.checks import check_arguments, width_problems
from efficientids_flax.core.head.computation import Head, constrain_batch
from efficientids_flax.core.head.embeddings import (
    ItemEmbedding,
    ItemInputAdapter,
    ItemOutputAdapter,
    Source,
    embedding_initializer,
    look_up,
)
from efficientids_flax.core.head.passed import HeadInputs, Table, TouchedTable
from efficientids_flax.core.head.sampled import NEGATIVES
from efficientids_flax.core.head.second import Adapter, Places
from efficientids_flax.core.head.touched import Touched, row_of
from efficientids_flax.core.model_checks import (
    check_clustering,
    check_fields,
    check_given,
    raise_listed,
)
from efficientids_flax.sharding import constrain

INTERMEDIATES = "intermediates"
# A variable collection: `touched` (a `Touched`), `rows` (the item table in the order that `Places`
# requires) and `values` (zeros). If given, gradients by the touched rows arrive at `values`, and
# the item table gets none.
ROW_GRADIENTS = "row_gradients"
OUTPUT_ADAPTER = "item_output_adapter"
SHARED_FIELDS = ("num_items", "num_clusters", "item_embedding_dim", "use_correction")


class HierarchicalSoftmax(nn.Module):
    """The head of a recommender: scores items for hidden states, by a two-level softmax.

    Holds the item table, and the cluster table if it is trained. Give either the seed API's fields
    or `config`. The fields make a head with a trained cluster table; if the width of the hidden
    states differs from the items', an output adapter maps them.

    Attributes:
        num_items, num_clusters, item_embedding_dim: I, K (None: the clustering's), E.
        clustering_info: the cluster of each item. Its means are the cluster vectors unless these
            are trained. Not needed under full softmax.
        use_correction: whether `scores` subtracts each cluster's normaliser; None: as in `config`.
        item_embedding_init: see `embedding_initializer`.
        config: all options.
        model_dims: D; needed if an adapter maps items to this width.
        dtype, param_dtype: dtypes of the computation (softmaxes are float32) and of the parameters.

    Raises:
        ValueError: missing fields, fields that contradict `config`, or a clustering that does not
            fit.
    """

    num_items: int | None = None
    num_clusters: int | None = None
    item_embedding_dim: int | None = None
    clustering_info: ClusteringInfo | None = None
    use_correction: bool | None = None
    item_embedding_init: Source = None
    config: HeadConfig | None = None
    model_dims: int | None = None
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        if self.config is None:
            check_given(self, ("num_items", "item_embedding_dim", "clustering_info"))
        settle_tables(self, self.options)
        super().__post_init__()

    @property
    def options(self) -> HeadConfig:
        """The configuration: `config`, or one made from the fields."""
        if self.config is not None:
            return self.config
        assert self.clustering_info is not None
        return HeadConfig(
            num_items=self.num_items or 0,
            item_embedding_dim=self.item_embedding_dim or 0,
            num_clusters=self.num_clusters or self.clustering_info.num_clusters,
            input_adapter_everywhere=False,
            output_adapter=AdapterConfig(),
            trainable_cluster_embeddings=True,
            use_correction=bool(self.use_correction),
        )

    def setup(self) -> None:
        config, width = self.options, self.options.item_embedding_dim
        initializer: Any = self.item_embedding_init
        self.item_embedding = ItemEmbedding(config.num_items, width, initializer, self.param_dtype)
        if config.trainable_cluster_embeddings:
            assert config.num_clusters is not None
            self.cluster_embedding = ItemEmbedding(
                config.num_clusters, width, param_dtype=self.param_dtype
            )
        kinds: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.model_dims is not None:
            self.item_input_adapter = ItemInputAdapter(
                width, self.model_dims, **config.input_adapter.to_dict(), **kinds
            )
        elif config.input_adapter_everywhere:
            raise ValueError("model_dims: missing, the input adapter maps the tables to it")
        if config.output_adapter is not None:
            self.item_output_adapter = ItemOutputAdapter(
                width, self.model_dims, **config.output_adapter.to_dict(), **kinds
            )

    def __call__(
        self,
        hidden: jax.Array,
        targets: jax.Array | None = None,
        weights: jax.Array | None = None,
        *,
        word_logits: jax.Array | None = None,
        target_is_item: jax.Array | None = None,
        training: bool = True,
    ) -> jax.Array | dict[str, jax.Array]:
        """Log-probabilities of all items, or the loss of targets.

        Args:
            hidden: [..., D].
            targets: int [...], item ids, or word ids where `target_is_item` is 0. Targets with a
                nonzero weight must be in range.
            weights: [...], weights of the targets in the loss; None: 1.
            word_logits: [..., V], concatenated to the first softmax.
            target_is_item: [...], 0 or 1; None: all targets are items.
            training: whether targets are smoothed.

        Returns:
            Without targets: float32 [..., I], log p(item). In a model without words the
            probabilities of a row sum to one. With targets: `loss` and metrics, see
            `LossOutput.metrics`; scores of the whole catalogue are not computed.

        Raises:
            ValueError: naming every wrong argument (values are checked only outside of jit).
        """
        dims, items = self._hidden_dims(), self.options.num_items
        check_arguments(hidden, dims, items, targets, weights, target_is_item, word_logits)
        targets, weights, target_is_item, word_logits = (
            None if value is None else jnp.asarray(value)
            for value in (targets, weights, target_is_item, word_logits)
        )
        inputs = self.inputs(jnp.asarray(hidden), word_logits)
        if targets is None:
            return self.head.log_probs(inputs)[..., -items:]
        if weights is None:
            weights = jnp.ones(targets.shape, jnp.float32)
        return self.head.loss(inputs, targets, weights, target_is_item, training).metrics()

    def embed_items(self, ids: jax.Array) -> tuple[jax.Array, Table]:
        """Embed input items at model width; also return the item table to pass to `inputs`.

        int [...] -> ([..., D], [I, E]); see `ItemEmbedding` for ids out of range.
        """
        if self.has_variable(ROW_GRADIENTS, "values"):
            assert self.clustering_info is not None
            touched: Touched = self.get_variable(ROW_GRADIENTS, "touched")
            at = touched.places_of(self.clustering_info, ids)
            zeros, values = look_up(self.get_variable(ROW_GRADIENTS, "values"), at)
            whole = jax.lax.stop_gradient(self.get_variable(ROW_GRADIENTS, "rows"))
            inside = jnp.clip(ids, 0, self.options.num_items - 1)
            rows = whole[row_of(self.clustering_info, inside)] + zeros
            table = TouchedTable(whole, Places(values, touched.starts()))
        else:
            rows, table = self.item_embedding.with_table(ids)
        self.sow(INTERMEDIATES, "item_rows", rows)
        items = self.item_input_adapter(rows)
        self.sow(INTERMEDIATES, "item_inputs", items)
        return items, table

    def inputs(
        self,
        hidden: jax.Array,
        word_logits: jax.Array | None = None,
        table: Table | None = None,
    ) -> HeadInputs:
        """Bring the tables and the query [..., W] to one width.

        Args:
            hidden: [..., D].
            word_logits: [..., V], computed from `scaled(hidden)`, before the soft cap.
            table: from `embed_items`; None if it was not called.

        Raises:
            ValueError: hidden states of another width than that of the parameters.
        """
        config = self.options
        raise_listed("inputs", width_problems(hidden, self._hidden_dims()))
        rows = places = None
        if isinstance(table, TouchedTable):
            rows, (values, starts) = table
            rows, places = rows.astype(self.dtype), Places(values.astype(self.dtype), starts)
            table = None  # the table in item order is made below; unused, XLA drops it
        items = (self.item_embedding.table() if table is None else table).astype(self.dtype)
        if rows is None and config.input_adapter_everywhere:
            rows = constrain(items, "I E")
        clusters = None if config.full_softmax else self._cluster_vectors().astype(self.dtype)
        query = self.scaled(hidden.astype(self.dtype))
        if config.input_adapter_everywhere:
            items = self.item_input_adapter(items)
            clusters = None if clusters is None else self.item_input_adapter(clusters)
        elif self._adapts(hidden.shape[-1]):
            query = self.item_output_adapter(query)
        items, query = constrain(items, "I W"), constrain_batch(query, "B T W")
        self.sow(INTERMEDIATES, "item_table", items)
        self.sow(INTERMEDIATES, "query", query)
        if clusters is not None:
            clusters = constrain(clusters, "K W")
            self.sow(INTERMEDIATES, "cluster_table", clusters)
        if word_logits is not None:
            self.sow(INTERMEDIATES, "word_logits", word_logits)
        return HeadInputs(hidden, query, items, clusters, word_logits, rows, places)

    def scaled(self, hidden: jax.Array) -> jax.Array:
        """`hidden` [..., D], times D^-0.5 with `scale_before_logits`, before any adapter."""
        scale = hidden.shape[-1] ** -0.5 if self.options.scale_before_logits else 1.0
        return hidden * scale

    @property
    def head(self) -> Head:
        """The losses and scores, as functions of what `inputs` returns."""
        wanted = self.is_mutable_collection(INTERMEDIATES)
        note = (lambda name, value: self.sow(INTERMEDIATES, name, value)) if wanted else None
        adapter = None
        if self.options.input_adapter_everywhere:
            # Unbound: a bound module cannot be called in jax's loops or `checkpoint`.
            module, variables = self.item_input_adapter.unbind()
            adapter = Adapter(module.apply, variables)
        key = None
        if self.options.sampled_softmax is not None and self.has_rng(NEGATIVES):
            key = self.make_rng(NEGATIVES)
        elif self.is_initializing():
            key = jax.random.key(0)  # only shapes matter here
        return Head(self.options, self.clustering_info, note, adapter, key)  # pyright: ignore[reportArgumentType]

    def _adapts(self, dims: int) -> bool:
        """Whether hidden states of this width go through the output adapter.

        With `config` they always do. Otherwise the existing parameters decide, not the width of
        the present call.
        """
        if self.config is not None:
            return True
        if self.model_dims is None and not self.is_initializing():
            return self.has_variable("params", OUTPUT_ADAPTER)
        return (self.model_dims or dims) != self.options.item_embedding_dim

    def _hidden_dims(self) -> int | None:
        """D of the existing parameters; None if they do not exist yet."""
        if self.model_dims is not None:
            return self.model_dims
        if self.is_initializing():
            return None
        if not self.has_variable("params", OUTPUT_ADAPTER):
            return self.options.item_embedding_dim
        return self.get_variable("params", OUTPUT_ADAPTER)["layers_0"]["kernel"].shape[0]

    def _cluster_vectors(self) -> jax.Array:
        """[K, E], trained or from the clustering file."""
        if self.options.trainable_cluster_embeddings:
            return self.cluster_embedding.table()
        assert self.clustering_info is not None and self.clustering_info.means is not None
        return jnp.asarray(self.clustering_info.means, jnp.float32)


def settle_tables(module: Any, config: HeadConfig) -> None:
    """Check a module's fields about its tables, when the module is built.

    Replaces `item_embedding_init` by an initializer: unlike an array it is hashable, which Flax
    requires of module fields.

    Raises:
        ValueError: fields that contradict `config`, a clustering or an initial table that does not
            fit.
    """
    check_fields(module, config, SHARED_FIELDS)
    check_clustering(config, module.clustering_info)
    shape = (config.num_items, config.item_embedding_dim)
    initializer = embedding_initializer(module.item_embedding_init, shape=shape)
    object.__setattr__(module, "item_embedding_init", initializer)
