"""Runs described in a file: builds model and data from names and paths.

model: {kind: simple, item_embedding_dim: 64, model_dims: 64}        # see `model_section`
data: {dir: data/ml1m_processed, batch_size: 64}                     # see `data_section`
optimizer: {learning_rate: 1e-3}
training: {num_steps: 1000}
checkpoint: {dir: runs/first}
"""

from collections.abc import Callable, Mapping
from typing import Any

from efficientids_flax.data.files import DataDirectory, read_data
from efficientids_flax.train.logs import tell
from efficientids_flax.train.run.config import SECTIONS, plain, run_config
from efficientids_flax.train.run.data_section import DataSection, batches_of, settled
from efficientids_flax.train.run.model_section import ModelSection, imported
from efficientids_flax.train.state import is_primary


def built(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with modules and batches instead of names and paths.

    A configuration that already has `model.module` and `data.train_iter_fn` keeps them.

    Raises:
        ValueError: lists everything that is wrong with the sections.
        FileNotFoundError: a directory does not exist.
    """
    made = plain(config)
    model, data = made.get("model") or {}, made.get("data") or {}
    for name, section in (("model", model), ("data", data)):
        if not isinstance(section, Mapping):
            raise ValueError(f"{name}: expected a section, found {section!r}")
    problems: list[str] = []
    reads = not set(data) & set(SECTIONS["data"])
    source = _tried(problems, "data", DataSection.from_dict, data) if reads else None
    section = None
    if "module" not in model:
        section = _tried(problems, "model", ModelSection.from_dict, model)
    if isinstance(name := made.get("loss_fn"), str):
        made["loss_fn"] = _tried(problems, "loss_fn", imported, name)
    others = {**made, "model": {"module": None}, "data": {"train_iter_fn": None}}
    _tried(problems, "", run_config, others)
    if problems:
        raise ValueError("\n".join(problems))
    directory = DataDirectory()
    if source is not None:
        training = made.get("training") or {}
        reading = source.reading(exclude_seen=bool(training.get("exclude_seen")))
        directory = read_data(source.dir, reading)
        for note in directory.notes if is_primary() else ():
            tell(training.get("progress", "auto"), f"data: {note}")
    if section is not None:
        section = _tried(problems, "model", lambda one: settled(one, directory), section)
    if section is not None:
        made["model"] = _tried(problems, "model", section.made, directory.clustering)
    if problems:
        raise ValueError("\n".join(problems))
    if source is not None:
        batches = batches_of(directory, source, made["model"]["module"])
        made["data"] = {**batches, "items": directory.items}
    return made


def _tried(problems: list[str], name: str, make: Callable[[Any], Any], given: Any) -> Any:
    """`make(given)`; on a ValueError, None, and the error is added to `problems`."""
    try:
        return make(given)
    except ValueError as error:
        problems.append(f"{name}: {error}" if name else str(error))
