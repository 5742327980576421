"""Makes checkpoints like those of a PAXml job, of any size, without PAXml; only for measuring.

Dimensions: V vocabulary, D model width, F feed-forward width, N heads, H head width, L layers.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgpack
import numpy as np
import tensorstore as ts

LAYOUTS = {"zarr": 1.1, "ocdbt": 1.2}  # layout -> version in metadata/metadata
HEAD = 64  # H
LAYERS = 16  # L of a model that is made to a requested size
STEP = 1000
BETA1, BETA2 = 0.9, 0.99
BLOCK = 1 << 22  # values generated at a time
BATCH = 1 << 28  # bytes of values written at a time
LM = "params.lm."
_CONTEXT = ts.Context({"file_io_sync": False})


@dataclass(frozen=True)
class Llama:
    """Sizes of a LLaMA-like `TransformerLm`: RMS norms, gated feed-forward, separate embedding."""

    layers: int
    width: int
    hidden: int
    vocabulary: int

    @classmethod
    def of_size(cls, nbytes: int) -> "Llama":
        """The model whose float32 parameters and Adam moments take about `nbytes` together."""
        values = nbytes / 12
        width = HEAD
        while cls._of_width(width + HEAD, LAYERS).values <= values:
            width += HEAD
        layers = max(
            range(1, 4 * LAYERS), key=lambda n: -abs(cls._of_width(width, n).values - values)
        )
        return cls._of_width(width, layers)

    @classmethod
    def of_leaves(cls, count: int) -> "Llama":
        """The narrowest model whose checkpoint holds about `count` leaves."""
        layers = max(round(count / 3 - 3) // 9, 1)
        return cls(layers, HEAD, 2 * HEAD, HEAD)

    @classmethod
    def _of_width(cls, width: int, layers: int) -> "Llama":
        hidden = -(-width * 8 // 3 // HEAD) * HEAD
        return cls(layers, width, hidden, min(32 * width, 32_000))

    @property
    def values(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.variables().values())

    def variables(self) -> dict[str, tuple[int, ...]]:
        """Dotted name below `mdl_vars` -> shape."""
        vocabulary, width, hidden = self.vocabulary, self.width, self.hidden
        heads = (width, width // HEAD, HEAD)
        shapes: dict[str, tuple[int, ...]] = {
            f"{LM}embedding_lookup.emb_var": (vocabulary, width),
            f"{LM}final_ln.scale": (width,),
            f"{LM}softmax.logits_ffn.linear.w": (width, vocabulary),
        }
        for layer in range(self.layers):
            place = f"{LM}transformer.x_layers_{layer}."
            shapes |= {
                f"{place}self_attention.{name}.w": heads
                for name in ("query", "key", "value", "post")
            }
            shapes |= {
                f"{place}ff_layer.{name}.linear.w": (width, hidden)
                for name in ("ffn_layer1", "ffn_layer1_gate")
            }
            shapes |= {
                f"{place}ff_layer.ffn_layer2.linear.w": (hidden, width),
                f"{place}ff_layer.layer_norm.scale": (width,),
                f"{place}layer_norm.scale": (width,),
            }
        return shapes


@dataclass(frozen=True)
class Array:
    """One array of a checkpoint.

    Attributes:
        keys: path in the `TrainState`.
        shape, dtype: shape and dtype of the values.
        scale: standard deviation; None for a counter.
        positive: whether values are squared, like Adam's second moments.
    """

    keys: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str = "<f4"
    scale: float | None = None
    positive: bool = False

    @property
    def pax_name(self) -> str:
        """Name of its directory: `opt_states_0_2.m.params…`."""
        dotted = ".".join(self.keys)
        if self.keys[0] != "opt_states":
            return dotted
        return "_".join(self.keys[:3]) + "." + ".".join(self.keys[3:])

    def fill(self, seed: int) -> np.ndarray:
        """Its values, determined by the seed."""
        if self.scale is None:
            return np.full(self.shape, STEP, self.dtype)
        random = np.random.default_rng(seed)
        values = np.empty(math.prod(self.shape), np.float32)
        for start in range(0, values.size, BLOCK):
            block = values[start : start + BLOCK]
            random.standard_normal(out=block, dtype=np.float32)
            block *= self.scale
            if self.positive:
                np.square(block, out=block)
        return values.reshape(self.shape)


def arrays(model: Llama) -> Iterator[Array]:
    """All arrays of the training state, in the order of the tree."""
    variables = model.variables()
    yield Array(("step",), (), "<u4")
    for name, shape in variables.items():
        yield Array(("mdl_vars", *name.split(".")), shape, scale=1 / math.sqrt(model.width))
    for transform in range(4):
        yield Array(("opt_states", "0", str(transform), "count"), (), "<i4")
    for field, scale in (("m", 1e-3), ("v", 1e-3)):
        for name, shape in variables.items():
            keys = ("opt_states", "0", "2", field, *name.split("."))
            yield Array(keys, shape, scale=scale, positive=field == "v")


def write_checkpoint(model: Llama, job: Path, layout: str) -> None:
    """Write a job directory with one step.

    Args:
        model: the model.
        job: directory to make.
        layout: one of `LAYOUTS`.
    """
    step = job / "checkpoints" / f"checkpoint_{STEP:08d}"
    state = step / "state"
    state.mkdir(parents=True)
    (step / "metadata").mkdir()
    about = {"version": LAYOUTS[layout], "train_state_metadata": {"mdl_vars": _described(model)}}
    (step / "metadata" / "metadata").write_text(json.dumps(about))
    (job / "model_params.txt").write_text(_dump(model))
    for batch in _batches(model):
        # One commit per batch: the database rewrites its index at each.
        with ts.Transaction() as transaction:
            for number, array in batch:
                values = array.fill(number)
                spec = _spec(array, state, layout)
                target = ts.open(spec, create=True, context=_CONTEXT, transaction=transaction)
                target.result().write(values).result()
    if layout == "ocdbt":
        _write_tree(model, state)


def zarr_metadata(array: Array) -> dict[str, Any]:
    """`.zarray` as paxml writes it on one device: one chunk, zstd level 1, no fill value."""
    return {
        "chunks": list(array.shape),
        "compressor": {"id": "zstd", "level": 1},
        "dimension_separator": ".",
        "dtype": array.dtype,
        "fill_value": None,
        "filters": None,
        "order": "C",
        "shape": list(array.shape),
        "zarr_format": 2,
    }


def _batches(model: Llama) -> Iterator[list[tuple[int, Array]]]:
    """Arrays with their indices, in groups of about `BATCH` bytes."""
    group: list[tuple[int, Array]] = []
    size = 0
    for number, array in enumerate(arrays(model)):
        group.append((number, array))
        size += 4 * math.prod(array.shape)
        if size >= BATCH:
            yield group
            group, size = [], 0
    if group:
        yield group


def _spec(array: Array, state: Path, layout: str) -> dict[str, Any]:
    """TensorStore's specification of a new array."""
    kvstore: dict[str, Any] = {"driver": "file", "path": f"{state}/{array.pax_name}/"}
    if layout == "ocdbt":
        base = {"driver": "file", "path": f"{state}/"}
        kvstore = {"driver": "ocdbt", "base": base, "path": ".".join(array.keys) + "/"}
    return {"driver": "zarr", "kvstore": kvstore, "metadata": zarr_metadata(array)}


def _write_tree(model: Llama, state: Path) -> None:
    """The files beside an OCDBT database: `_METADATA`, and `checkpoint` with its placeholders."""
    tree: dict[str, Any] = {}
    entries: dict[str, Any] = {}
    for array in arrays(model):
        _put(tree, array.keys, "PLACEHOLDER://" + ".".join(array.keys))
        entries[str(array.keys)] = {
            "key_metadata": [
                {"key": key, "key_type": 1 if key.isdigit() else 2} for key in array.keys
            ],
            "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False},
        }
    learner = tree["opt_states"]["0"]
    tree["opt_states"] = [[learner[str(index)] for index in range(len(learner))]]
    tree["extra_state"] = None
    entries["('extra_state',)"] = {
        "key_metadata": [{"key": "extra_state", "key_type": 2}],
        "value_metadata": {"value_type": "None", "skip_deserialize": True},
    }
    (state / "checkpoint").write_bytes(msgpack.packb(tree) or b"")
    (state / "_METADATA").write_text(json.dumps({"tree_metadata": entries, "use_zarr3": False}))


def _described(model: Llama) -> dict[str, Any]:
    """`train_state_metadata` of the variables."""
    tree: dict[str, Any] = {}
    for name, shape in model.variables().items():
        about = {"dtype": "float32", "is_optax_masked_node": False, "unpadded_shape": list(shape)}
        _put(tree, tuple(name.split(".")), {"_array_metadata_tag": True, **about})
    return tree


def _put(tree: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value


def _dump(model: Llama) -> str:
    """The lines of `model_params.txt` that a conversion needs."""
    lm, optimizer = "model.lm_tpl", "train.learner.optimizer"
    stack = f"{lm}.stacked_transformer_tpl"
    layer = f"{stack}.transformer_layer_params_tpl"
    norm = "type/praxis.layers.normalizations/RmsNorm"
    lines = {
        f"{lm}.cls": "type/praxis.layers.transformer_models/TransformerLm",
        f"{lm}.final_ln_tpl.cls": norm,
        f"{lm}.model_dims": model.width,
        f"{lm}.separate_embedding_tpl.cls": "type/praxis.layers.embedding_softmax/Embedding",
        f"{lm}.vocab_size": model.vocabulary,
        f"{stack}.hidden_dims": model.hidden,
        f"{stack}.num_heads": model.width // HEAD,
        f"{stack}.num_layers": model.layers,
        f"{layer}.ln_tpl.cls": norm,
        f"{layer}.norm_policy": "'pre'",
        f"{layer}.tr_atten_tpl.combine_qkv": False,
        f"{layer}.tr_atten_tpl.internal_enable_per_dim_scale": False,
        f"{layer}.tr_atten_tpl.use_bias": False,
        f"{layer}.tr_atten_tpl.use_rotary_position_emb": True,
        f"{layer}.tr_fflayer_tpl.activation_tpl.cls": "type/praxis.layers.activations/SiLU",
        f"{layer}.tr_fflayer_tpl.ln_tpl.cls": norm,
        f"{layer}.tr_fflayer_tpl.use_gated_activation": True,
        f"{optimizer}.beta1": BETA1,
        f"{optimizer}.beta2": BETA2,
        f"{optimizer}.cls": "type/praxis.optimizers/Adam",
        f"{optimizer}.epsilon": 1e-6,
        f"{optimizer}.learning_rate": 1e-3,
    }
    return "".join(f"{path} : {value}\n" for path, value in sorted(lines.items()))


@click.command()
@click.argument("job", type=click.Path(path_type=Path, exists=False))
@click.option("--nbytes", type=int, help="Size of parameters and moments together.")
@click.option("--leaves", type=int, help="Number of tiny leaves, instead of a size.")
@click.option("--layout", type=click.Choice(list(LAYOUTS)), default="zarr", show_default=True)
def main(job: Path, nbytes: int | None, leaves: int | None, layout: str) -> None:
    """Make the job directory JOB."""
    model = Llama.of_leaves(leaves) if leaves else Llama.of_size(nbytes or 1 << 30)
    write_checkpoint(model, job, layout)


if __name__ == "__main__":
    main()
