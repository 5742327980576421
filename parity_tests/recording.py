"""A recording in memory: what a model computed elsewhere.

`parity_tests.readers.own` reads and writes the format on disk, which is documented in
docs/reference/recording-format.md. The other `parity_tests.readers` convert other folders to the
same form.
"""

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (NumPy then knows bfloat16)
import numpy as np

MANIFEST, ARRAYS = "manifest.json", "arrays.npz"
SHARED = ("inputs", "parameters")  # kinds of arrays that passes share; the others are results
FOUND = ("activations", "outputs", "metrics", "gradients")
# Fields of a batch that our models read.
INPUTS = (
    "ids", "inputs_embeds", "paddings", "segment_ids", "segment_pos", "inputs_indicator",
    "labels", "weights", "input_item_weights", "label_item_weights", "masked_ids", "masked_pos",
)  # fmt: skip
Arrays = Mapping[str, np.ndarray]


class RecordingError(ValueError):
    """A recording that cannot be used; the message lists what is wrong with it."""


@dataclass(frozen=True)
class Pass:
    """One run of the original on one batch.

    Attributes:
        name: name of the pass; '' if it is the only one.
        inputs: field of the batch -> array.
        activations, outputs, metrics: arrays by the origin's names.
        gradients: gradients of the loss, by the origin's parameter paths; `inputs_embeds` for that
            input.
        parameters: the parameters that were used, by the origin's paths; None: the checkpoint's.
        train: whether the loss is the training loss.
        dtype: dtype in which the original computed.
        exact: the same run of the original in float32, if `dtype` is another; None if it was not
            recorded, so that our own float32 run is used instead.
    """

    name: str
    inputs: Arrays
    activations: Arrays = field(default_factory=dict)
    outputs: Arrays = field(default_factory=dict)
    metrics: Arrays = field(default_factory=dict)
    gradients: Arrays = field(default_factory=dict)
    parameters: Arrays | None = None
    train: bool = True
    dtype: str = "float32"
    exact: "Pass | None" = None


def model_inputs(one: Pass) -> Arrays:
    """The batch as our models read it. For Praxis' `BertModel`, the masked words become the ids.

    They are `masked_ids`, or `augmented_labels` if the model drew the masks itself. Only masked
    positions count for the loss.
    """
    drawn = one.outputs.get("augmented_labels"), one.outputs.get("augmented_pos")
    given = one.inputs.get("masked_ids"), one.inputs.get("masked_pos")
    ids, places = drawn if drawn[0] is not None else given
    if ids is None or places is None:
        return one.inputs
    rest = {name: value for name, value in one.inputs.items() if not name.startswith("masked_")}
    return {**rest, "ids": ids, "weights": np.asarray(places, np.float32)}


def is_masked(one: Pass) -> bool:
    """Whether the pass was recorded from Praxis' `BertModel`."""
    return "masked_ids" in one.inputs or "augmented_labels" in one.outputs


def form(one: Pass) -> Hashable:
    """What passes have in common if one program serves them: the batch's form, and the loss."""
    batch = {name: np.asarray(value) for name, value in model_inputs(one).items()}
    fields = frozenset((name, value.shape, value.dtype) for name, value in batch.items())
    return fields, is_masked(one), one.train


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        number: number of the step, from 1.
        inputs: its batch.
        gradients: the gradients that the optimizer received; empty: ours are computed.
        parameters: the parameters after the step.
        loss: the loss before the step; None if it is not recorded.
    """

    number: int
    inputs: Arrays
    gradients: Arrays
    parameters: Arrays
    loss: np.ndarray | None = None

    @property
    def run(self) -> Pass:
        """The pass that gives the step's loss and gradients."""
        return Pass("", self.inputs)


@dataclass(frozen=True)
class Recording:
    """Everything that was recorded from one model.

    Attributes:
        path: the folder that was read.
        origin: program and version, for people.
        names: which table of `parity_tests.names` translates its names.
        model: 'language_model' or 'recommender'.
        passes: the passes, in the order in which to compare them.
        start: parameters before the first step, with a new optimizer; None if the steps continue
            from the checkpoint and its optimizer state.
        steps: consecutive optimizer steps.
        ends_at_checkpoint: whether parameters and optimizer state after the steps are those of the
            checkpoint.
        dtype: dtype in which the original computed.
        tolerances: key of `TOLERANCES` -> tolerance in place of the table's.
        settings: keys of our configuration -> value, as the origin's own description gives them.
        clustering: clustering file of a recommender.
        versions, seed, config, checkpoint, notes: for people.
    """

    path: str
    origin: str
    names: str
    model: str
    passes: tuple[Pass, ...]
    start: Arrays | None = None
    steps: tuple[Step, ...] = ()
    ends_at_checkpoint: bool = False
    dtype: str = "float32"
    tolerances: Mapping[str, float] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    clustering: Path | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    config: Any = None
    checkpoint: str | None = None
    notes: str = ""


def is_recording(path: Path) -> bool:
    """Whether a directory is in this format."""
    return (path / MANIFEST).is_file() and (path / ARRAYS).is_file()


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read every array of an `.npz`, without unpickling anything in it.

    Raises:
        RecordingError: the file does not exist, is not an `.npz`, or holds objects.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise RecordingError(f"{path}: no such file") from None
    except Exception as error:  # zipfile, zlib and NumPy each raise errors of their own
        raise RecordingError(f"{path}: not a readable .npz: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RecordingError: the file does not exist, or does not hold a JSON object.
    """
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise RecordingError(f"{path}: no such file") from None
    except ValueError as error:
        raise RecordingError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise RecordingError(f"{path}: expected an object, found {type(found).__name__}")
    return found


def find_clustering(root: Path) -> Path | None:
    """The clustering file in a recording's folder; None if there is none."""
    found = (root / name for name in ("clustering.pkl", "clustering_plain.npz", "clustering.npz"))
    return next((path for path in found if path.is_file()), None)


def listed(what: str, problems: list[str]) -> str:
    """One message that lists the problems of one thing."""
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    more = [f"and {len(problems) - 20} more"] if len(problems) > 20 else []
    return "\n  ".join([f"{what}: {count}:", *problems[:20], *more])
