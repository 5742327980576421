"""Writes a pretrained language model as a Flax checkpoint, verified like every conversion."""

from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from typing import Any

from converters.huggingface.files import Pretrained, open_pretrained
from converters.huggingface.forecasters import MODEL_TYPE, plan_forecaster
from converters.huggingface.planner import PretrainedOptions, plan_pretrained
from converters.plan import Plan
from converters.write import Report, WorkOptions, carry_out


@dataclass(frozen=True)
class ConvertPretrainedOptions(WorkOptions):
    """How a pretrained model is converted.

    Attributes:
        plan: what the output contains.
        revision, download, token: see `open_pretrained`.
    """

    plan: PretrainedOptions = field(default_factory=PretrainedOptions)
    revision: str = "main"
    download: bool = False
    token: str | None = None


def convert_pretrained(
    name_or_path: str | PathLike[str],
    output: str | PathLike[str],
    options: ConvertPretrainedOptions | None = None,
    **plan: Any,
) -> Report:
    """Convert a HuggingFace model; `load_converted` and `load_model` read the output.

    Args:
        name_or_path: folder, or name of a model in the HuggingFace cache.
        output: directory to be made.
        options: see `ConvertPretrainedOptions`.
        **plan: fields of `PretrainedOptions`, as a shortcut.

    Returns:
        A report of what was done.

    Raises:
        ConversionError: the model or the output is wrong; nothing is left under the output's name.
    """
    given = options or ConvertPretrainedOptions()
    wanted = replace(given, plan=PretrainedOptions(**plan)) if plan else given
    how = {"revision": wanted.revision, "download": wanted.download, "token": wanted.token}
    return carry_out(
        lambda: _planned(open_pretrained(name_or_path, **how), wanted.plan),
        output,
        wanted,
        _recorded(wanted, name_or_path),
    )


def _planned(model: Pretrained, options: PretrainedOptions) -> Plan:
    """Plan the conversion of a forecaster or of a language model, by the kind of model."""
    if model.config.get("model_type") == MODEL_TYPE:
        return plan_forecaster(model, options.dtype, options.scan_layers, options.ignore_keys)
    return plan_pretrained(model, options)[1]


def _recorded(options: ConvertPretrainedOptions, source: str | PathLike[str]) -> dict[str, Any]:
    """The options that decide what the output contains, as recorded in the manifest."""
    about = {"model": fspath(source), "revision": options.revision, "to": options.to}
    plan = {
        name: value for name, value in vars(options.plan).items() if value not in (None, (), False)
    }
    return about | {"verify": options.verify} | plan
