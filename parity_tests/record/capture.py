"""Runs a PAXml task on a batch and records every intermediate value with its name.

Names are paths of Praxis layers, `lm/transformer/x_layers_0/self_attention/query`. If a layer
returns several values, each name ends in `/0`, `/1` or the value's key. The second call of a layer
ends in `#1`. Methods other than `__call__` are those in `METHODS`, named `<layer>/<method>`. Layers
with experts also record the inputs and results of Praxis' gating: `router_logits` and
`routing/...`.
"""
from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from paxml import trainer_lib
from praxis import base_layer, gshard_utils, py_utils
from praxis.layers import transformers

Arrays = dict[str, np.ndarray]

PRECISION = "float32"  # what later versions of JAX call "highest"
METHODS = ("__call__", "emb_lookup", "_prepare_input", "_scale_query", "_cap_logits")
PASSING = (  # last parts of the names of values that only pass on another recorded value
    "0", "self_atten", "transformer", "atten_dropout", "relu_dropout", "residual_dropout",
    "_scale_query", "_cap_logits",
)  # fmt: skip
LEFT_OUT = ("", "lm", "lm/softmax")  # their results are `outputs` and `metrics`
ROUTING = {  # results of the gating functions (praxis/gshard_utils.py), by number
    "top2": ("loss", "combine", "dispatch"),
    "expert_choice": ("loss", "gate", "choice"),
    "expert_choice_v2": ("loss", "combine", "dispatch"),
}


@dataclasses.dataclass
class Run:
    """A model with its parameters, as PAXml trains it.

    Attributes:
        task: instance of the task.
        state: TrainState.
        inputs: the batch for which values are recorded.
        evaluate: run an evaluation (Praxis' `do_eval`) instead of a training step.
        seed: seed of random numbers, for models that draw some.
    """

    task: Any
    state: Any
    inputs: Any
    evaluate: bool = False
    seed: int = 0

    def values(self) -> Arrays:
        """`activations/...`, `outputs/...`, `metrics/.../{value,weight}` and `gradients/...`."""
        with jax.default_matmul_precision(PRECISION), routing_recorded():
            seen, metrics, outputs = self._forward()
            gradients = self._gradients()
        found = {f"outputs/{name}": value for name, value in _leaves(outputs, "")}
        for name, (value, weight) in metrics.items():
            found[f"metrics/{name}/value"] = value
            found[f"metrics/{name}/weight"] = weight
        found |= {f"activations/{name}": value for name, value in _named(seen, "")}
        found |= {f"gradients/{path}": value for path, value in flat(gradients).items()}
        return {
            name: as_numpy(value)
            for name, value in found.items()
            if not isinstance(value, jax.core.Tracer)  # with one key head, values are under `vmap`
        }

    def _forward(self) -> tuple[Any, Any, Any]:
        """Intermediate values, metrics and the results of the language model."""
        kept: dict[str, Any] = {}

        def apply(model: Any, variables: Any, inputs: Any, mutable: Any, rngs: Any) -> Any:
            result, updated = model.apply(
                variables, inputs, rngs=rngs, mutable=[*mutable, "intermediates"],
                capture_intermediates=lambda _, method: method in METHODS,
            )  # fmt: skip
            kept.update(updated.pop("intermediates"))
            return result, updated

        self._loss(apply)(self.state.mdl_vars)  # not jitted: keeps plain arrays
        ((metrics, _),) = kept["__call__"]
        return kept, metrics, kept.get("lm", {}).get("__call__", ({},))[0]

    def _gradients(self) -> Any:
        """Gradients of the loss for all variables, also for those that the learner excludes."""
        rest = {name: value for name, value in self.state.mdl_vars.items() if name != "params"}
        loss = self._loss(None)
        # Not jitted: XLA of jaxlib 0.4.26 gives wrong gradients of bfloat16 products on CPUs when
        # it compiles several layers at once, or aborts.
        return jax.grad(lambda params: loss({**rest, "params": params}))(
            self.state.mdl_vars["params"]
        )

    def _loss(self, apply: Any) -> Any:
        """PAXml's own loss as a function of the variables."""
        hparams = base_layer.JaxContext.HParams(do_eval=self.evaluate, summary_verbosity=0)
        model = self.task.model
        with base_layer.JaxContext.new_context(hparams=hparams):
            about = model.abstract_init_with_metadata(self.inputs)
        function = trainer_lib._get_default_loss_fn(
            self.task, hparams, model.hparams.fprop_dtype, about, apply
        )
        return lambda variables: function(variables, self.inputs, jax.random.PRNGKey(self.seed))[0]


def train(run: Run, batches: list[Any]) -> tuple[Any, Arrays]:
    """Train on one batch after the other with PAXml's train step.

    Returns:
        The last state, and `steps/<n>/...` from n = 1: `inputs/<field>`, `loss` (before the
        update) and `parameters/<path>` (after the update).
    """
    found: Arrays = {}
    state = run.state
    dtype = run.task.model.hparams.fprop_dtype
    step = jax.jit(
        lambda state, inputs: trainer_lib.train_step_single_learner(
            run.task, state, jax.random.PRNGKey(run.seed), inputs, dtype
        )
    )
    for number, batch in enumerate(batches, 1):
        with jax.default_matmul_precision(PRECISION):
            state, output = step(state, batch)
        place = f"steps/{number}"
        found |= {f"{place}/inputs/{name}": as_numpy(value) for name, value in batch.items()}
        found[f"{place}/loss"] = as_numpy(output.loss)
        for path, value in flat(state.mdl_vars["params"]).items():
            found[f"{place}/parameters/{path}"] = as_numpy(value)
    return state, found


def distinct(arrays: Arrays) -> tuple[Arrays, dict[str, str]]:
    """Remove activations that are bit for bit equal to another one.

    Of a layer and the inner layer that makes the same value, the inner one stays (`query/einsum`,
    not `query`). A value that a layer only passes on (`PASSING`) is removed in favour of its
    source.

    Returns:
        The arrays that stay, and removed name -> name that stays.
    """
    stays: Arrays = {}
    same: dict[str, str] = {}
    groups: dict[Any, list[str]] = {}
    for name, value in arrays.items():
        if "activations/" in name and value.ndim:
            key = (name.partition("activations/")[0], value.shape, value.tobytes())
            groups.setdefault(key, []).append(name)
    for names in groups.values():
        made = [name for name in names if name.rpartition("/")[2] not in PASSING] or names[:1]
        for name in names:
            outer = [other for other in made if name.startswith(f"{other}/")]
            if outer or name not in made:
                same[name] = min(outer or made, key=len)
    for name, value in arrays.items():
        if name not in same:
            stays[name] = value
    return stays, {name: same.get(other, other) for name, other in same.items()}


@contextlib.contextmanager
def routing_recorded() -> Iterator[None]:
    """Within the context, layers with experts record the inputs and results of their gating."""
    layers: list[Any] = []
    owner, name = transformers.TransformerFeedForwardMoe, "_dispatch_and_combine_expert_outputs"
    dispatch, gating = getattr(owner, name), gshard_utils.compute_gating

    def dispatch_of(layer: Any, *args: Any) -> Any:
        layers.append(layer)
        try:
            return dispatch(layer, *args)
        finally:
            layers.pop()

    def gating_of(**options: Any) -> Any:
        results = gating(**options)
        layer = layers[-1]
        layer.sow("intermediates", "router_logits", options["logits"])
        names = ROUTING[options["gating_func"]]
        kept = dict(zip(names, results, strict=False))
        if options["prng_key"] is not None:
            kept["prng_key"] = options["prng_key"]
        layer.sow("intermediates", "routing", kept)
        return results

    setattr(owner, name, dispatch_of)
    gshard_utils.compute_gating = gating_of
    try:
        yield
    finally:
        setattr(owner, name, dispatch)
        gshard_utils.compute_gating = gating


def flat(params: Any) -> dict[str, Any]:
    """Parameters by path, `params/lm/...`."""
    found = jax.tree_util.tree_flatten_with_path(params)[0]
    return {"/".join(["params", *(str(step.key) for step in path)]): leaf for path, leaf in found}


def as_numpy(value: Any) -> np.ndarray:
    """An array that NumPy can save; bfloat16 becomes float32, which holds it exactly."""
    array = jnp.asarray(value)
    return np.asarray(array.astype(jnp.float32) if array.dtype == jnp.bfloat16 else array)


def nested(batch: Mapping[str, Any]) -> Any:
    """A batch in the form that PAXml takes; fields that are not numbers are dropped."""
    arrays = {name: np.asarray(value) for name, value in batch.items()}
    return py_utils.NestedMap(
        {name: jnp.asarray(value) for name, value in arrays.items() if value.dtype.kind in "biuf"}
    )


def _named(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Walk Flax' tree of intermediates; each leaf is a tuple with the result of each call."""
    for key, value in node.items():
        place = f"{path}/{key}".lstrip("/")
        if isinstance(value, Mapping):
            yield from _named(value, place)
            continue
        if key == "__call__":
            place = path
            if path in LEFT_OUT:
                continue
        for call, result in enumerate(value):
            yield from _leaves(result, f"{place}#{call}" if call else place)


def _leaves(result: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The arrays in a result, which may be a tuple or a mapping, each with its name."""
    if isinstance(result, Mapping):
        items: Any = result.items()
    elif isinstance(result, (tuple, list)):
        items = enumerate(result)
    else:
        if result is not None:
            yield path, result
        return
    for key, value in items:
        yield from _leaves(value, f"{path}/{key}".lstrip("/"))
