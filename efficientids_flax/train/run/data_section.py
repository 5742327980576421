"""The `data` section of a configuration file: batches from a directory.

data: {dir: data/ml1m, batch_size: 256, length: 50}
data: {dir: data/ml1m, length: 256, pack: true, prompt: {tokenizer: DIR, form: "{title} {item}, "}}
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import jax

from efficientids_flax.config import EfficientIDSConfig, PromptConfig
from efficientids_flax.config.record import Record, positive
from efficientids_flax.data import Batches, DataDirectory, Prompting, Reading, Rows, load_tokenizer
from efficientids_flax.data.prepared import check_catalogue, check_vectors
from efficientids_flax.data.rows import ItemRows, PackedRows, PromptRows
from efficientids_flax.stored import Prompted, read_item_names
from efficientids_flax.train.batches import ShuffledBatches

OF_ALL = ("dir", "batch_size", "seed")  # settings that apply to every kind of data
RANDOM = "random"  # value of `item_embedding_init` that is not a file


@dataclass(frozen=True)
class PromptSection(Record):
    """Texts between the items, see `Prompting`.

    Attributes:
        tokenizer: directory of a HuggingFace model, or its name.
        form, before, after, begin, end, placeholder, overflow, learn, items: see `Prompting`.
    """

    tokenizer: str
    form: str = "{title} {item}, "
    before: str = ""
    after: str = ""
    begin: tuple[int, ...] | None = None
    end: tuple[int, ...] | None = None
    placeholder: int | None = None
    overflow: Literal["error", "cut"] = "cut"
    learn: Literal["last", "every"] = "last"
    items: int | None = None

    def problems(self) -> Collection[str]:
        """The problems that `Prompting` finds."""
        try:
            self._prompting(None)
        except ValueError as error:
            return [str(error)]
        return ()

    def made(self) -> Prompting:
        """The `Prompting`, with its tokenizer loaded.

        Raises:
            FileNotFoundError, ValueError, ImportError: the tokenizer cannot be loaded.
        """
        return self._prompting(load_tokenizer(self.tokenizer))

    def _prompting(self, tokenizer: Any) -> Prompting:
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        return Prompting(**{**given, "tokenizer": tokenizer})


@dataclass(frozen=True)
class DataSection(Record):
    """A directory of data.

    Attributes:
        dir: see `data.files`.
        batch_size: rows of a step, over all processes.
        seed: seed of the shuffling.
        length: T, items of a row, or tokens of a prompt; None: 50, or the longest stored example.
        windows, stride, targets, pack, overflow, verify: see `Reading`.
        prompt: texts between the items, see `PromptSection`; None: items alone.
        workers: number of processes that make batches; 0: a thread does.
        own_shards: each process reads only its share of the files, and trains on that.
    """

    dir: str
    batch_size: int = 64
    seed: int = 0
    length: int | None = None
    windows: Literal["all", "last", "prefixes"] = "all"
    stride: int | None = None
    targets: Literal["all", "first"] = "all"
    pack: bool = False
    overflow: Literal["error", "cut"] = "error"
    verify: bool = False
    prompt: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 0
    own_shards: bool = False

    def problems(self) -> Collection[str]:
        """Sizes are positive."""
        found = positive(self, "batch_size", "length", "stride")
        if self.workers < 0:
            found.append(f"workers: expected at least 0, found {self.workers}")
        if self.prompt:
            try:
                PromptSection.from_dict(self.prompt)
            except ValueError as error:
                found.append(f"prompt: {error}")
        return found

    def reading(self, *, exclude_seen: bool) -> Reading:
        """How rows are made from the directory.

        Args:
            exclude_seen: whether the evaluation excludes items that a user has seen.
        """
        share = (jax.process_index(), jax.process_count()) if self.own_shards else None
        if share is not None and share[1] > 1 and exclude_seen:
            # The array of seen items is as wide as the longest history, which differs by process.
            raise ValueError("data.own_shards: does not go with training.exclude_seen")
        return Reading(
            length=self.length,
            windows=self.windows,
            stride=self.stride,
            targets=self.targets,
            exclude_seen=exclude_seen,
            prompting=PromptSection.from_dict(self.prompt).made() if self.prompt else None,
            pack=self.pack,
            overflow=self.overflow,
            share=share,
            verify=self.verify,
        )


def batches_of(directory: DataDirectory, section: DataSection, module: Any) -> dict[str, Any]:
    """The `data` section of `train`: `prompted`, and the `..._iter_fn` of each split.

    Args:
        directory: the data read.
        section: the settings of the data.
        module: the model; if it has words, rows mark which ids are items.

    Raises:
        ValueError: the batch size is not divisible by the processes; a setting does not apply to
            arrays.
    """
    count = jax.process_count()
    if section.batch_size % count:
        raise ValueError(
            f"data.batch_size: {section.batch_size} does not divide among {count} processes"
        )
    made: dict[str, Any] = {"prompted": _prompted(directory, module)}
    for split, rows in directory.splits.items():
        if isinstance(rows, Rows):
            marked = _marked(rows, module)
            made[f"{split}_iter_fn"] = _batches(marked, split == "train", section)
        else:
            made[f"{split}_iter_fn"] = _of_arrays(rows, split == "train", section)
    return made


def settled(section: Any, directory: DataDirectory) -> Any:
    """A `model` section completed from the data: the number of items, and their embeddings.

    Args:
        section: section of a model.
        directory: the data read.

    Raises:
        FileNotFoundError: the named embeddings do not exist.
        ValueError: embeddings, or a converted model, belong to another catalogue.
    """
    where, catalogue, count = str(directory.path), directory.catalogue, directory.num_items
    if count is not None and getattr(section, "num_items", count) is None:
        section = replace(section, num_items=count)
    init = getattr(section, "item_embedding_init", None)
    if isinstance(init, str) and init != RANDOM:
        file = directory.embeddings.get(init)
        if file is not None:
            section = replace(section, item_embedding_init=str(file))
        elif count is not None and Path(init).suffix:
            check_vectors(init, where, catalogue, count)
    path = getattr(section, "path", None)
    names = None if path is None or catalogue is None else read_item_names(path)
    if names is not None and count is not None and (theirs := names.digest()):
        check_catalogue(f"{path}", theirs, len(names.ids), where, catalogue, count)
    return section


def _prompted(directory: DataDirectory, module: Any) -> Prompted | None:
    """The prompts for a model trained on these rows; None: those of its own settings."""
    rows = directory.splits.get("train")
    if not isinstance(rows, Rows) or not _knows_words(module):
        return None
    marked = _marked(rows, module)
    inner = marked.rows if isinstance(marked, PackedRows) else marked
    if isinstance(inner, PromptRows):
        return inner.prompted()
    # Rows of items alone have no words around them; other rows are the original's examples.
    return Prompted(PromptConfig()) if isinstance(inner, ItemRows) else None


def _knows_words(module: Any) -> bool:
    config = getattr(module, "config", None)
    return isinstance(config, EfficientIDSConfig) and config.backbone.vocab_size > 0


def _marked(rows: Rows, module: Any) -> Rows:
    """Rows that mark which ids are items, if the model has words."""
    if not _knows_words(module):
        return rows
    if isinstance(rows, ItemRows | PackedRows) and isinstance(rows.rows, ItemRows):
        return rows
    one = rows.take(rows.first)
    return rows if "input_item_weights" in one else ItemRows(rows)


def _batches(rows: Rows, trains: bool, section: DataSection) -> Batches:
    # With `own_shards`, the rows are this process' share already.
    count = 1 if section.own_shards else jax.process_count()
    index = jax.process_index() if count > 1 else 0
    return Batches(
        rows,
        section.batch_size // jax.process_count() * count,
        seed=section.seed,
        shuffle=trains,
        drop_remainder=trains,
        epochs=None if trains else 1,
        process=(index, count),
        workers=section.workers if trains else 0,
    )


def _of_arrays(arrays: Mapping[str, Any], trains: bool, section: DataSection) -> ShuffledBatches:
    defaults = {one.name: one.default for one in fields(DataSection) if one.name not in OF_ALL}
    given = [name for name, value in defaults.items() if name != "prompt"
             and getattr(section, name) != value]  # fmt: skip
    if given or section.prompt:
        named = ", ".join([*given, *(["prompt"] if section.prompt else [])])
        raise ValueError(
            f"data.{named}: without effect on {section.dir}, which holds finished rows (arrays);"
            " leave it out"
        )
    count = jax.process_count()
    size, rows = section.batch_size // count, len(next(iter(arrays.values()))) // count
    return ShuffledBatches(
        arrays,
        size if trains else max(1, min(size, rows)),
        seed=section.seed,
        shuffle=trains,
        drop_remainder=trains,
        epochs=None if trains else 1,
        process=(jax.process_index(), count),
    )
