"""What the user decides about the content of a conversion's output."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import fspath
from typing import Any

OPTIMIZER_MODES = ("convert", "raw", "none")


@dataclass(frozen=True)
class PlanOptions:
    """Options of the output's content.

    Attributes:
        family: table of rules; None: detected.
        rules: file with a table of your own.
        scan_layers: layers stacked (True), one by one (False), or unchanged (None).
        optimizer: 'convert' to optax, 'raw' for PAXml's own tree, or 'none'.
        dtype: dtype to cast parameters to; None: unchanged.
        dequantize: dequantize weights to float32.
        keep_lora: keep LoRA weights of a forecaster separate; else they are merged.
        job_files: directory of PAXml's text dumps; None: looked for beside the checkpoint.
        overrides: configuration values that do not follow from the tree, by dotted name.
        also: `CKPT:RULES` specifications of further checkpoints.
        experiment: name of a published experiment whose settings are used.
        strict: assumed settings that change activations or logits are an error.
    """

    family: str | None = None
    rules: str | None = None
    scan_layers: bool | None = None
    optimizer: str = "convert"
    dtype: str | None = None
    dequantize: bool = False
    keep_lora: bool = False
    job_files: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    experiment: str | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        """Paths become text, which the manifest can hold."""
        for name in ("rules", "job_files"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, fspath(path))
