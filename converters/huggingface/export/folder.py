"""Writes a converted checkpoint as a folder that `transformers` opens.

export_pretrained("out", "folder")
AutoModelForCausalLM.from_pretrained("folder")
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from converters.arrays import Source
from converters.errors import CheckpointError, MappingError
from converters.huggingface.export.config_json import choose_family, config_json
from converters.huggingface.export.source import ConvertedModel, open_converted
from converters.huggingface.export.tensors import tensors_of
from converters.huggingface.forecasters import MODEL_TYPE, plan_forecaster_folder
from converters.huggingface.planner import cast, check_dtype
from converters.huggingface.tables import TABLES
from converters.plan import Plan, PlannedLeaf
from converters.stores import Store
from converters.write import Report, WorkOptions, carry_out
from converters.write.formats import SHARD, SafetensorsSink
from converters.zarr import dtype_named
from efficientids_flax.config import TimesFMConfig

ITEM = "model"  # files are model.safetensors, or model-00001-of-00002.safetensors ...
FRAMEWORK = "pt"  # by this word, transformers recognises the files
# Files for the tokenizer and for generation, as far as they exist.
TEXT = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model",
    "chat_template*", "generation_config.json",
)  # fmt: skip


@dataclass(frozen=True)
class ExportOptions(WorkOptions):
    """How a converted checkpoint is written for `transformers`; `to` has no effect here.

    Attributes:
        family: `model_type` of the output; None: the family that the model came from, else the
            first that computes the model.
        dtype: dtype of the parameters and the computation; None: unchanged.
        values: further keys of `config.json`, such as `eos_token_id`.
        tokenizer: folder to copy the tokenizer's files from; None: the folder that the model came
            from, if it still exists.
        shard: largest size of a file, in bytes of values.
    """

    family: str | None = None
    dtype: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    shard: int = SHARD


def export_pretrained(
    checkpoint: str | PathLike[str],
    output: str | PathLike[str],
    options: ExportOptions | None = None,
) -> Report:
    """Write the language model of a converted checkpoint in the format of `transformers`.

    Args:
        checkpoint: output of `convert`, `convert-hf` or `export`.
        output: new directory, on a local disk.
        options: see `ExportOptions`.

    Returns:
        A report of what was done.

    Raises:
        ConversionError: the checkpoint cannot be read, or no family can express it (the error
            lists why); nothing is left under the output's name.
    """
    wanted = options or ExportOptions()
    text: list[Path] = []

    def make_plan() -> Plan:
        model = open_converted(checkpoint)
        text[:] = text_files(wanted.tokenizer, model.folder)
        plan = plan_export(model, wanted)
        return replace(plan, notes=(*plan.notes, *_gone(wanted.tokenizer, model.folder)))

    return carry_out(
        make_plan,
        output,
        replace(wanted, to="safetensors"),
        _recorded(wanted, checkpoint),
        sink=lambda store, plan: FolderSink(store, plan, wanted.shard, text),
    )


def plan_export(model: ConvertedModel, options: ExportOptions) -> Plan:
    """Plan the output: names, shapes and operations; no values are read.

    Raises:
        MappingError: the chosen family, or every family, cannot express the model.
    """
    config, values = model.config, options.values
    if isinstance(config, TimesFMConfig):
        if options.family not in (None, MODEL_TYPE):
            raise MappingError(
                f"family {options.family!r}: a forecaster is written as {MODEL_TYPE}"
            )
        return plan_forecaster_folder(
            model.url, config, model.params, known=model.known, values=values,
            dtype=options.dtype, doubts=model.doubts,
        )  # fmt: skip
    if options.family is not None and options.family not in TABLES:
        raise MappingError(f"family {options.family!r}; known are {', '.join(TABLES)}")
    if options.dtype is not None:
        check_dtype(options.dtype)
        config = replace(config, dtype=options.dtype)
    family = options.family or choose_family(config, model.known, values)
    content, notes = config_json(config, family, model.known, values)
    tensors = tensors_of(
        {path: Source(leaf) for path, leaf in model.params.items()}, family, config
    )
    leaves = [
        PlannedLeaf(f"{ITEM}/{name}", tensor.array, "; ".join(tensor.steps) or "rename")
        for name, tensor in tensors.items()
    ]
    if options.dtype is not None:
        leaves = cast(leaves, dtype_named(options.dtype))
    return Plan(
        source=model.url,
        step=None,
        layout="converted checkpoint",
        family=family,
        leaves=tuple(leaves),
        ignored=model.ignored,
        config=content,
        provenance={"model": config.to_dict()},
        rules=(),
        notes=(*model.doubts, *notes),
    )


def text_files(chosen: str | None, origin: str | None) -> list[Path]:
    """Find the files of the tokenizer and for generation that will be copied.

    Args:
        chosen: the user's folder.
        origin: the folder that the model came from, which may no longer exist.

    Raises:
        CheckpointError: the user's folder has no such files.
    """
    folder = Path(chosen or origin or "")
    found: list[Path] = []
    if (chosen or origin) and folder.is_dir():
        names = {file for pattern in TEXT for file in folder.glob(pattern) if file.is_file()}
        found = sorted(names)
    if chosen and not any(file.name.startswith(("tokenizer", "vocab")) for file in found):
        raise CheckpointError(f"{folder}: holds no files of a tokenizer ({', '.join(TEXT[:4])})")
    return found


def _gone(chosen: str | None, origin: str | None) -> list[str]:
    """A note if files cannot be copied because their folder no longer exists."""
    if chosen or origin is None or Path(origin).is_dir():
        return []
    return [
        f"{origin}, which the model came from, is not there: files of its tokenizer and"
        " generation_config.json, if it had any, are not copied; --tokenizer names another folder"
    ]


class FolderSink(SafetensorsSink):
    """safetensors files, with the tokenizer's files beside them."""

    def __init__(self, store: Store, plan: Plan, shard: int, text: list[Path]) -> None:
        super().__init__(store, plan.leaves, shard, FRAMEWORK)
        self._text = text

    def finish(self, leaves: list[PlannedLeaf]) -> None:
        """Write the index, and copy the other files."""
        super().finish(leaves)
        for file in self._text:
            with file.open("rb") as source:
                self._store.write_blocks(file.name, iter(lambda: source.read(1 << 20), b""))


def _recorded(options: ExportOptions, source: str | PathLike[str]) -> dict[str, Any]:
    """The options that decide what the output contains, as recorded in the manifest."""
    given = {
        name: getattr(options, name)
        for name in ("family", "dtype", "tokenizer")
        if getattr(options, name) is not None
    }
    return {"checkpoint": fspath(source), "verify": options.verify, **given} | (
        {"values": dict(options.values)} if options.values else {}
    )
