"""Opens a converted checkpoint for export: its leaves, configuration and origin."""

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from converters.arrays import Leaf
from converters.errors import CheckpointError
from converters.huggingface.files import indexed_tensors, read_safetensors
from converters.stores import MissingKeyError, Store, open_ocdbt, open_store
from converters.zarr import ZarrLeaf
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig, TimesFMConfig
from efficientids_flax.parameters import BACKBONE, refuse_quantized, shape_problems
from efficientids_flax.settings import assumed, assumed_lines
from efficientids_flax.stored.settings import MODELS

ITEM = "params"
DECODER = "backbone."  # prefix of the decoder's settings in those of a recommender


@dataclass(frozen=True)
class ConvertedModel:
    """The language model of a converted checkpoint; no arrays are read yet.

    Attributes:
        url: path or URL of the checkpoint.
        config: configuration of the decoder, or of a forecaster.
        params: path -> leaf of the decoder's parameters.
        ignored: (path, reason) of the leaves that are not part of the decoder.
        known: the `config.json` of the HuggingFace model that it came from; else empty.
        folder: the folder of that model.
        doubts: the decoder's settings that were assumed, in words.
    """

    url: str
    config: BackboneConfig | TimesFMConfig
    params: Mapping[str, Leaf]
    ignored: tuple[tuple[str, str], ...]
    known: Mapping[str, Any]
    folder: str | None
    doubts: tuple[str, ...] = ()


def open_converted(path: str | PathLike[str]) -> ConvertedModel:
    """Open the output of `convert-hf`, `convert-paxml` or `save_model`.

    Args:
        path: its directory; a local path or a `gs://` or `s3://` URL.

    Raises:
        CheckpointError: there is no checkpoint, it is damaged, or it has no model.
    """
    store = open_store(path)
    about = _json(store, "config.json", "give the OUT of convert-hf or convert-paxml")
    family, model = about.get("family"), about.get("model")
    if model is None or family not in MODELS:
        raise CheckpointError(
            f"{store.url}: family {family!r} has no configuration of a language model, only "
            "parameters; convert it again with its family"
        )
    try:
        config = MODELS[family].from_dict(model)
    except ValueError as error:
        raise CheckpointError(f"{store.url}/config.json: {error}") from error
    leaves = _leaves(store)
    try:
        refuse_quantized(store.url, leaves)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    problems = shape_problems(config, {name: leaf.spec.shape for name, leaf in leaves.items()})
    if problems:
        raise CheckpointError(
            "\n  ".join(
                [f"{store.url}: the parameters are not those of config.json:", *problems[:20]]
            )
        )
    ignored: tuple[tuple[str, str], ...] = ()
    origins = about.get("origins", {}).get("model")
    if isinstance(config, EfficientIDSConfig):
        config = config.backbone
        decoder = {key.removeprefix(DECODER): origin for key, origin in (origins or {}).items()}
        origins = None if origins is None else decoder
        others = [name for name in leaves if not name.startswith(BACKBONE)]
        ignored = tuple((f"{ITEM}/{name}", "of the recommender") for name in others)
        leaves = {
            name.removeprefix(BACKBONE): leaf
            for name, leaf in leaves.items()
            if name.startswith(BACKBONE)
        }
    known, folder = _origin(store)
    found = {} if origins is None else {"forward": assumed(config, origins)}
    doubts = tuple(assumed_lines(found, store.url))
    return ConvertedModel(store.url, config, leaves, ignored, known, folder, doubts)


def _leaves(store: Store) -> dict[str, Leaf]:
    """Path -> leaf of all parameters, from either format."""
    if store.exists(f"{ITEM}.safetensors"):
        return dict(read_safetensors(store, f"{ITEM}.safetensors"))
    if store.exists(f"{ITEM}.safetensors.index.json"):
        leaves, _, slips = indexed_tensors(store, f"{ITEM}.safetensors.index.json")
        if slips:
            raise CheckpointError("\n  ".join([*slips.values()][:20]))
        return dict(leaves)
    tree = _json(store, f"{ITEM}/_METADATA", f"it has neither {ITEM}/ nor {ITEM}.safetensors")
    try:
        names = ["/".join(ast.literal_eval(keys)) for keys in tree["tree_metadata"]]
    except (KeyError, TypeError, ValueError, SyntaxError) as error:
        raise CheckpointError(f"{store.url}/{ITEM}/_METADATA: no tree of names: {error}") from error
    # A conversion writes one directory per leaf, `save_model` one OCDBT database.
    place = open_ocdbt(store, ITEM) if tree.get("use_ocdbt") else store.child(ITEM)
    return {name: ZarrLeaf.open(name, place, name.replace("/", ".")) for name in names}


def _origin(store: Store) -> tuple[dict[str, Any], str | None]:
    """`config.json` and folder of the HuggingFace model in the manifest; ({}, None) without one."""
    if not store.exists("manifest.json"):
        return {}, None
    manifest = _json(store, "manifest.json", "")
    try:
        known = manifest["config"]["model"]["config.json"]
        folder = manifest["source"]["url"]
    except (KeyError, TypeError):
        return {}, None
    return {**known, **(known.get("text_config") or {})}, folder


def _json(store: Store, key: str, advice: str) -> dict[str, Any]:
    try:
        found = json.loads(store.read(key))
    except MissingKeyError as error:
        raise CheckpointError(f"{store.url}: no {key}; {advice}") from error
    except ValueError as error:
        raise CheckpointError(f"{store.url}/{key}: is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{store.url}/{key}: is no JSON object")
    return found
