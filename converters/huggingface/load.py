"""Loads a pretrained language model into memory, each tensor directly to its device."""

import logging
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from converters.huggingface.files import open_pretrained
from converters.huggingface.in_memory import values_of
from converters.huggingface.planner import PretrainedOptions, plan_pretrained
from converters.plan import PlannedLeaf
from converters.write import default_workers
from efficientids_flax.config import BackboneConfig
from efficientids_flax.stored import Shardings
from efficientids_flax.tree import unflatten

logger = logging.getLogger(__name__)


def load_pretrained_lm(
    name_or_path: str | os.PathLike[str],
    dtype: str | None = None,
    *,
    shardings: Shardings | None = None,
    scan_layers: bool = False,
    revision: str = "main",
    download: bool = False,
    token: str | None = None,
    ignore_keys: Collection[str] = (),
) -> tuple[BackboneConfig, dict[str, Any]]:
    """Load a pretrained language model as a configuration and parameters of our decoder.

    Needs host memory for the parameters once, plus a little for what is being read.

    Args:
        name_or_path: folder with `config.json` and safetensors, or the name of a model in the
            HuggingFace cache.
        dtype: dtype of parameters and computation; None: parameters keep their stored dtype, and
            the computation has the dtype in `config.json`.
        shardings: shardings of the parameters, as in `load_converted`; each process reads only its
            own shards. None: everything on the default device.
        scan_layers: stack layers on a leading axis, for a decoder that scans them.
        revision: branch, tag or commit, for a name.
        download: download what the cache lacks (needs `huggingface_hub`).
        token: access token, for models that are not public.
        ignore_keys: keys of `config.json` to treat as missing: keys that would be refused, but that
            you know to have no effect.

    Returns:
        (configuration, nested dict of arrays): `Decoder(config).apply({"params": params}, ids)`.

    Raises:
        ConversionError: there is no such model, its files are damaged, its family or a setting is
            not supported, or tensors do not fit; lists all problems of a kind.
    """
    model = open_pretrained(name_or_path, revision, download=download, token=token)
    config, plan = plan_pretrained(model, PretrainedOptions(dtype, scan_layers, ignore_keys))
    for note in plan.notes:
        logger.warning("%s: %s", model.folder, note)
    # The largest leaves first, so that none of them is left for the end.
    leaves = sorted(plan.leaves, key=lambda leaf: -leaf.nbytes)
    with ThreadPoolExecutor(default_workers(), "load") as pool:
        placed = list(pool.map(lambda leaf: _placed(leaf, shardings), leaves))
    names = (leaf.target.removeprefix("params/") for leaf in leaves)
    return config, unflatten(dict(zip(names, placed, strict=True)))


def _placed(leaf: PlannedLeaf, shardings: Shardings | None) -> jax.Array:
    """Put a leaf's values on their devices, and wait: few copies are to be in progress at once."""
    array = leaf.array
    if shardings is None:
        return jax.device_put(values_of(array), may_alias=True).block_until_ready()
    if not isinstance(shardings, jax.sharding.Sharding):
        shape = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        shardings = shardings(leaf.target, shape)

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        wanted = index or (slice(None),) * len(leaf.shape)
        bounds = [part.indices(size) for part, size in zip(wanted, leaf.shape, strict=True)]
        return values_of(array, tuple(slice(start, stop) for start, stop, _ in bounds))

    return jax.make_array_from_callback(leaf.shape, shardings, part).block_until_ready()
