"""Runs our model on a recorded batch: intermediate values, outputs, metrics and gradients."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone import Decoder
from efficientids_flax.backbone.experts import LOSSES
from efficientids_flax.backbone.generate import generate
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.batch import check_batch
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.losses import language_model_loss, language_model_metrics
from efficientids_flax.tree import flatten, unflatten
from parity_tests.recording import Arrays, Pass, is_masked, model_inputs
from parity_tests.run.canonical import canonical
from parity_tests.run.outputs import masked_metrics, recommender_metrics, recommender_outputs

INTERMEDIATES = "intermediates"
EMBEDS = "inputs_embeds"
TEXT = "generate"  # output of a pass: its prompts and the text generated after them
DROPOUTS = ("input_dropout", "attention_dropout", "residual_dropout", "mlp_dropout")
Batch = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Subject:
    """A converted model.

    Attributes:
        config: configuration of the model.
        params: nested dicts.
        clustering: clustering of a recommender.
        nhd_post: whether PAXml's output projections begin with the heads; None if only their shapes
            can tell.
    """

    config: BackboneConfig | EfficientIDSConfig
    params: Mapping[str, Any]
    clustering: ClusteringInfo | None = None
    nhd_post: bool | None = None

    @property
    def backbone(self) -> BackboneConfig:
        """The decoder's configuration."""
        return self.config.backbone if isinstance(self.config, EfficientIDSConfig) else self.config

    def in_dtype(self, dtype: str) -> "Subject":
        """The model computing in another dtype; parameters keep their stored dtype."""
        return self.with_backbone(dtype=dtype)

    def with_backbone(self, **values: Any) -> "Subject":
        """The same parameters with other settings of the decoder."""
        changed = replace(self.backbone, **values)
        if isinstance(self.config, EfficientIDSConfig):
            return replace(self, config=replace(self.config, backbone=changed))
        return replace(self, config=changed)

    def with_parameters(self, values: Arrays) -> "Subject":
        """The model with other parameters, given by path."""
        return replace(self, params=unflatten(values))


class Options(NamedTuple):
    """Options of one program: the model, whether it trains, whether intermediate values are kept.

    `masked`: whether the model is Praxis' `BertModel`, which reports other metrics. `only`: names
    of the wanted values; None: all.
    """

    config: BackboneConfig | EfficientIDSConfig
    clustering: ClusteringInfo | None
    train: bool
    inside: bool
    masked: bool = False
    only: frozenset[str] | None = None

    @property
    def mutable(self) -> list[str]:
        """Flax collections that the modules may write."""
        return [LOSSES, *([INTERMEDIATES] if self.inside else [])]


@dataclass(frozen=True)
class Found:
    """What our model computed.

    Attributes:
        values: intermediate values by path, `outputs/<name>`, `metrics/<name>/{value,weight}`.
        gradients: gradients of the loss by parameter path; `inputs_embeds` for that input.
    """

    values: Arrays
    gradients: Arrays


def run(
    subject: Subject,
    one: Pass,
    *,
    gradients: bool = True,
    inside: bool = True,
    only: Collection[str] | None = None,
    compiled: bool = True,
) -> Found:
    """Run a model on the batch of a pass, in the dtype of its configuration.

    Matrix products have full precision on any device. There is no dropout, because the random bits
    of the origin cannot be repeated. Gradients include frozen parameters.

    Args:
        subject: the model.
        one: the pass: its inputs, and whether the loss is the training loss.
        gradients: whether to compute gradients.
        inside: whether to keep intermediate values.
        only: names of the wanted values; None: all. A program with few results compiles in a
            fraction of the time.
        compiled: whether the run is compiled as a whole, not run operation by operation.
    """
    batch = {name: jnp.asarray(value) for name, value in model_inputs(one).items()}
    embeds = batch.pop(EMBEDS, None)
    gradients = gradients and "labels" in batch
    still = subject.with_backbone(**dict.fromkeys(DROPOUTS, 0.0))
    options = Options(
        still.config, subject.clustering, one.train, inside, is_masked(one),
        None if only is None else frozenset(only),
    )  # fmt: skip
    program = _program(options, gradients, compiled)
    with jax.default_matmul_precision("highest"):
        kept, found = program(subject.params, embeds, batch)
    intermediates, results = jax.device_get(kept)
    values = canonical(intermediates, subject.backbone) | results
    of_params, of_embeds = found
    slopes = {path: np.asarray(value) for path, value in flatten(of_params).items()}
    if of_embeds is not None:
        slopes[EMBEDS] = np.asarray(of_embeds)
    text = f"outputs/{TEXT}"
    if TEXT in one.outputs and not sees_all(subject) and (only is None or text in only):
        with jax.disable_jit(not compiled):
            values[text] = continued(still, one)
    return Found({name: np.asarray(value) for name, value in values.items()}, slopes)


def sees_all(subject: Subject) -> bool:
    """Whether tokens see later ones, so that text cannot be generated token by token."""
    return subject.backbone.attention_mask == "bidirectional"


def continued(subject: Subject, one: Pass) -> np.ndarray:
    """Greedy text after the prompts of a pass, as long as the recorded text: int [B, T + G]."""
    ids = one.inputs["ids"]
    paddings = one.inputs.get("paddings")
    with jax.default_matmul_precision("highest"):
        found = generate(
            Decoder(subject.backbone),
            subject.params,
            jnp.asarray(ids),
            None if paddings is None else jnp.asarray(paddings),
            max_new_tokens=one.outputs[TEXT].shape[1] - ids.shape[1],
        )
    return np.concatenate([ids, np.asarray(found.tokens)], axis=1)


@lru_cache(maxsize=128)
def _program(
    options: "Options", gradients: bool, compiled: bool = True
) -> Callable[[Any, Any, Batch], Any]:
    """A function (params, embeddings or None, batch) -> (values, gradients of the first 2).

    It is compiled once for all passes and steps with the same options. What gives `only` some names
    is a part of what gives them all, which is traced once for all its parts.
    """
    if options.only is not None:
        return jax.jit(_part(_program(options._replace(only=None), gradients), options))
    recommends = isinstance(options.config, EfficientIDSConfig)
    function = _recommender if recommends else _language_model

    def loss(params: Any, embeds: Any, batch: Batch) -> Any:
        given = batch if embeds is None else {**batch, EMBEDS: embeds}
        return function(options, given, params)

    def compute(params: Any, embeds: Any, batch: Batch) -> Any:
        if not gradients:
            return loss(params, embeds, batch)[1], ({}, None)
        places = (0,) if embeds is None else (0, 1)
        found, kept = jax.grad(loss, argnums=places, has_aux=True)(params, embeds, batch)
        return kept, (found[0], found[1] if len(found) > 1 else None)

    return jax.jit(compute) if compiled else compute


def _part(whole: Callable[[Any, Any, Batch], Any], options: "Options") -> Any:
    """The values of a program whose names are wanted."""
    assert options.only is not None
    names, backbone = options.only, Subject(options.config, {}).backbone

    def compute(params: Any, embeds: Any, batch: Batch) -> Any:
        (intermediates, results), slopes = whole(params, embeds, batch)
        values = canonical(intermediates, backbone, names) | results
        return ({}, {name: values[name] for name in names & values.keys()}), slopes

    return compute


def _language_model(
    options: Options, batch: Batch, params: Any
) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    """(loss, (intermediates, outputs and metrics)) of a decoder with its head."""
    config = options.config
    assert isinstance(config, BackboneConfig)

    def forward(module: Decoder) -> jax.Array:
        hidden = module(
            batch.get("ids"),
            inputs_embeds=batch.get(EMBEDS),
            paddings=batch.get("paddings"),
            segment_ids=batch.get("segment_ids"),
            positions=batch.get("segment_pos"),
            inputs_indicator=batch.get("inputs_indicator"),
            deterministic=not options.train,
        )
        return module.logits(hidden) if config.gives_words else hidden

    logits, kept = Decoder(config).apply(
        {"params": params},
        method=forward,
        capture_intermediates=options.inside,
        mutable=options.mutable,
    )
    results: dict[str, Any] = {"outputs/logits": logits} if config.gives_words else {}
    loss = jnp.zeros(())
    if "labels" in batch and config.gives_words:
        weights = batch.get("weights", jnp.ones(batch["labels"].shape, jnp.float32))
        batch = {**batch, "weights": weights}
        made = language_model_loss(config, logits, batch, kept.get(LOSSES, {}), options.train)
        loss = made.total_loss
        results |= {f"outputs/{name}": value for name, value in made._asdict().items()}
        results["outputs/labels"] = batch["labels"]
        metrics = language_model_metrics(made, batch)
        if options.masked:
            metrics = masked_metrics(made, batch)
            results |= {"outputs/augmented_labels": batch["ids"]}
            results |= {"outputs/augmented_pos": batch["weights"]}
        for name, (value, weight) in metrics.items():
            results |= {f"metrics/{name}/value": value, f"metrics/{name}/weight": weight}
    return loss, (kept.get(INTERMEDIATES, {}), results)


def _recommender(
    options: Options, batch: Batch, params: Any
) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    """(loss, (intermediates, outputs and metrics)) of a decoder with items."""
    config = options.config
    assert isinstance(config, EfficientIDSConfig)
    model = EfficientIDSModel(config=config, clustering_info=options.clustering)
    check_batch(config, batch, labels=True)

    def forward(module: EfficientIDSModel) -> tuple[Any, jax.Array | None]:
        inputs = module.head_inputs(batch, deterministic=not options.train)
        made = module.loss_of(inputs, batch, options.train)
        return made, module.softmax.head.evaluation_logits(inputs) if options.inside else None

    (made, scores), kept = model.apply(
        {"params": params},
        method=forward,
        capture_intermediates=options.inside,
        mutable=options.mutable,
    )
    if not options.inside:
        return made.loss, ({}, {f"outputs/{k}": v for k, v in made._asdict().items()})
    inside = kept[INTERMEDIATES]
    results = recommender_outputs(config, batch, made, scores, inside, options.train)
    results |= recommender_metrics(config, batch, made, results)
    return made.loss, (inside, jax.lax.stop_gradient(results))
