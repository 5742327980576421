"""Writes a pretrained language model as a Flax checkpoint: same writer, same verification."""

import time
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from typing import Any

from converters.convert import FORMATS, GIB, Report
from converters.errors import OutputError
from converters.execute import default_workers, execute, tile_limit
from converters.huggingface.files import open_pretrained
from converters.huggingface.planner import PretrainedOptions, plan_pretrained
from converters.progress import shown
from converters.verify import MODES
from converters.write.jobs import Settings
from converters.write.orbax import OrbaxSink
from converters.write.output import Output
from converters.write.safetensors import SafetensorsSink


@dataclass(frozen=True)
class ConvertPretrainedOptions:
    """How a pretrained model is converted.

    Attributes:
        plan: what comes out.
        revision, download, token: see `open_pretrained`.
        to, verify, memory, workers, overwrite, resume, dry_run, quiet: see `ConvertOptions`.
    """

    plan: PretrainedOptions = field(default_factory=PretrainedOptions)
    revision: str = "main"
    download: bool = False
    token: str | None = None
    to: str = "orbax"
    verify: str = "full"
    memory: int = GIB
    workers: int | None = None
    overwrite: bool = False
    resume: bool = False
    dry_run: bool = False
    quiet: bool = True


def convert_pretrained(
    name_or_path: str | PathLike[str],
    output: str | PathLike[str],
    options: ConvertPretrainedOptions | None = None,
    **plan: Any,
) -> Report:
    """Convert a HuggingFace language model; `load_converted` and `load_model` read the output.

    Args:
        name_or_path: folder, or name of a model in the HuggingFace cache.
        output: directory to be made.
        options: see `ConvertPretrainedOptions`.
        **plan: fields of `PretrainedOptions`, as a short way to give them.

    Returns:
        What was done.

    Raises:
        ConversionError: nothing is left under the output's name.
    """
    started = time.monotonic()
    options = options or ConvertPretrainedOptions()
    if plan:
        options = replace(options, plan=PretrainedOptions(**plan))
    if options.verify not in MODES or options.to not in FORMATS:
        raise OutputError(
            f"verify is one of {', '.join(MODES)} and the format one of {', '.join(FORMATS)}"
        )
    place = None if options.dry_run else Output(output, overwrite=options.overwrite)
    model = open_pretrained(
        name_or_path, options.revision, download=options.download, token=options.token
    )
    _, made = plan_pretrained(model, options.plan)
    if place is None:
        return Report(made, None, {}, time.monotonic() - started)
    place.check_space(made.nbytes)
    orbax = options.to == "orbax"
    sink = OrbaxSink(place.store) if orbax else SafetensorsSink(place.store, made.leaves)
    workers = options.workers or default_workers()
    with shown(made.nbytes, quiet=options.quiet) as progress:
        records = execute(
            made,
            place,
            sink,
            Settings(tile_limit(options.memory, workers), options.verify),
            workers=workers,
            resume=options.resume,
            options=_recorded(options, name_or_path),
            progress=progress,
        )
    return Report(made, place.url, records, time.monotonic() - started)


def _recorded(options: ConvertPretrainedOptions, source: str | PathLike[str]) -> dict[str, Any]:
    """The options that decide about the content, as the manifest has them."""
    about = {"model": fspath(source), "revision": options.revision, "to": options.to}
    plan = {
        name: value for name, value in vars(options.plan).items() if value not in (None, (), False)
    }
    return about | {"verify": options.verify} | plan
