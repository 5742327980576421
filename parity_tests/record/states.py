"""Makes states that no training job writes: quantized weights, and values of every dtype.

Quantized models are made with PAXml's own `quantize_weight`, which serving jobs call. `dequantized`
in their manifests is the weight that the INFERENCE layers effectively multiply by. It is found by
passing the identity through `praxis.layers.quantization.operations.einsum`.
"""
from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from paxml import train_states
from praxis import base_hyperparams, base_layer
from praxis.layers.quantization import operations, quantize

MODES = quantize.QuantizationMode

# The product in which a weight is used, by a part of its name.
EQUATIONS = (
    ("combined_qkv/w", "AD,KDNH->KANH"),
    ("post/w", "ANH,DNH->AD"),
    ("self_attention/", "AD,DNH->ANH"),
    ("", "AD,DF->AF"),
)


def quantized_state(experiment: Any, **settings: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Make a TrainState with quantized weights, the task that serves it, and the actual weights.

    Args:
        experiment: the experiment whose model is quantized.
        settings: arguments of `set_transformer_quantization`.
    """
    task = experiment.task()
    quantize.set_transformer_quantization(
        task.model.lm_tpl, mode=MODES.MATERIALIZE, quantize_embedding_softmax=True, **settings
    )
    model = base_hyperparams.instantiate(task.model)
    batch = experiment.datasets()[0].make_batch()
    with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=True)):
        variables = model.init(jax.random.PRNGKey(1), _nested(batch))
        made, _ = model.apply(
            variables, rngs={"params": jax.random.PRNGKey(2)}, mutable=[],
            method=model.quantize_weight,
        )  # fmt: skip
    made = jax.tree_util.tree_map(jnp.asarray, dict(made))
    state = train_states.TrainState(
        step=jnp.array(3, jnp.uint32), mdl_vars=made, opt_states=[], extra_state=()
    )
    serving = experiment.task()
    quantize.set_transformer_quantization(
        serving.model.lm_tpl, mode=MODES.INFERENCE, quantize_embedding_softmax=True, **settings
    )
    return state, serving, _dequantized(made["params"], settings)


def _nested(batch: Any) -> Any:
    from praxis import py_utils

    return py_utils.NestedMap(batch)


def _dequantized(params: Any, settings: dict[str, Any]) -> dict[str, np.ndarray]:
    """path -> the dequantized values of a weight; packed and blocked weights are left out."""
    flat = {
        "/".join(str(part.key) for part in path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    }
    found = {}
    for path, scale in flat.items():
        if not path.endswith("_quantized_scale"):
            continue
        name = path.removesuffix("_quantized_scale")
        weight, zero = flat[name], flat.get(name + "_quantized_zp")
        blocks = settings.get("block_size", 0)
        if weight.dtype == jnp.int32 or blocks:  # packed or blocked weights have another shape
            continue
        if "/repeat/" in name:
            layers = range(weight.shape[0])
            found[name] = np.stack(
                [
                    _values(name, weight[i], scale[i], None if zero is None else zero[i])
                    for i in layers
                ]
            )
        else:
            found[name] = _values(name, weight, scale, zero)
    return found


def _values(name: str, weight: Any, scale: Any, zero: Any) -> np.ndarray:
    equation = next(e for part, e in EQUATIONS if part in name)
    if equation.startswith("ANH"):  # the output projection: [D, N, H] from [N * H, N, H]
        identity = jnp.eye(weight.shape[1] * weight.shape[2]).reshape(-1, *weight.shape[1:])
        out = operations.einsum(equation, identity, weight, scale, zero)
        return np.asarray(out).T.reshape(weight.shape)
    identity = jnp.eye(weight.shape[1 if equation.startswith("AD,K") else 0])
    return np.asarray(operations.einsum(equation, identity, weight, scale, zero))


def state_of_all_dtypes() -> Any:
    """A TrainState with a leaf of each dtype that PAXml can store, in all its parts."""
    values = np.arange(6).reshape(2, 3)
    kinds = ("float32", "bfloat16", "float16", "int8", "uint8", "int32", "uint32")
    odd = {name: jnp.asarray(values, getattr(jnp, name)) for name in kinds}
    odd["bool"] = jnp.asarray(values % 2 == 0)
    odd["scalar"] = jnp.asarray(7, jnp.int32)
    odd["float64"] = np.linspace(0, 1, 6).reshape(2, 3)  # a NumPy array: no jax_enable_x64 needed
    odd["int64"] = values.astype(np.int64) + 2**40
    return train_states.TrainState(
        step=jnp.array(3, jnp.uint32),
        mdl_vars={
            "params": {"net": {"w": jnp.asarray(values, jnp.float32)}},
            "non_trainable": {"net": {**odd, "x_layers_0": {"moving_mean": odd["float32"]}}},
            "batch_stats": {"mean": odd["float32"]},
        },
        opt_states=[],
        extra_state={"rng": jnp.asarray([1, 2], jnp.uint32), "done": jnp.asarray(True)},
    )
