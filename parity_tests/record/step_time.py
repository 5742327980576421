"""Times the gradient step of a model of the real Praxis; run by benchmarks/against_paxml.py.

It runs in the Python 3.10 of the recordings and imports nothing of this project. It prints "ready"
after compiling, then answers each line of input with the seconds that one step took.
"""
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from praxis import base_layer, layers, pax_fiddle
from praxis.layers import activations, models, transformer_models, transformers


def language_model(size, scan):
    """A Praxis `LanguageModel` of this size: LayerNorm, GELU, sinusoids, tied embeddings.

    With `num_items`, its softmax is extended with items as in the original recommender.
    """
    lm = pax_fiddle.Config(
        transformer_models.TransformerLm,
        name="lm",
        vocab_size=size["vocab_size"],
        model_dims=size["model_dims"],
    )
    stacked = pax_fiddle.Config(
        transformers.StackedTransformer,
        num_layers=1 if scan else size["num_layers"],
        num_heads=size["num_heads"],
        model_dims=size["model_dims"],
        hidden_dims=size["hidden_dims"],
    )
    layer = stacked.transformer_layer_params_tpl
    layer.tr_fflayer_tpl.activation_tpl = pax_fiddle.Config(activations.GELU)
    layer.tr_atten_tpl.combine_qkv = True
    if scan:
        stacked = pax_fiddle.Config(
            transformers.StackedTransformerRepeated, block=stacked, x_times=size["num_layers"]
        )
    lm.stacked_transformer_tpl = stacked
    softmax, more = layers.SharedEmbeddingSoftmax, {}
    if "num_items" in size:
        from item_softmax import ItemSoftmax, random_tables

        softmax = ItemSoftmax
        more = {name: size[name] for name in ("num_items", "num_clusters", "item_dims")}
        more["tables"] = random_tables(*more.values())
    lm.softmax_tpl = pax_fiddle.Config(softmax, scale_sqrt_depth=True, **more)
    return base_layer.instantiate(pax_fiddle.Config(models.LanguageModel, name="model", lm_tpl=lm))


def main():
    """Compile, then time one step per line of input."""
    size = json.loads(sys.argv[1])
    model = language_model(size, scan=True)
    rng = np.random.default_rng(0)
    shape = (size["batch"], size["time"])
    most = size.get("num_items", size["vocab_size"])
    words = rng.integers(0, most, (shape[0], shape[1] + 1)).astype(np.int32)
    from praxis import py_utils

    batch = py_utils.NestedMap(
        ids=jnp.asarray(words[:, :-1]),
        labels=jnp.asarray(words[:, 1:]),
        paddings=jnp.zeros(shape),
        weights=jnp.ones(shape),
    )
    variables = model.init(jax.random.PRNGKey(0), batch)

    def loss(variables, batch):
        with base_layer.JaxContext.new_context(
            hparams=base_layer.JaxContext.HParams(do_eval=False)
        ):
            (metrics, _), _ = model.apply(
                variables, batch, rngs={"random": jax.random.PRNGKey(1)}, mutable=True
            )
        return metrics["total_loss"][0]

    step = jax.jit(jax.value_and_grad(loss, allow_int=True))
    jax.block_until_ready(step(variables, batch))
    count = sum(leaf.size for leaf in jax.tree_util.tree_leaves(variables["params"]))
    print("ready", count, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        jax.block_until_ready(step(variables, batch))
        print(time.perf_counter() - started, flush=True)


main()
