"""The options that decide what the output of a conversion contains."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import fspath
from typing import Any

OPTIMIZER_MODES = ("convert", "raw", "none")


@dataclass(frozen=True)
class PlanOptions:
    """Options for the content of the output.

    Attributes:
        family: family of the rule table; None: detected.
        rules: file with a rule table of your own.
        scan_layers: stack the layers (True), keep them separate (False), or leave them as they are
            (None).
        optimizer: 'convert' to optax, 'raw' for PAXml's own tree, or 'none'.
        dtype: dtype to which parameters are cast; None: unchanged.
        dequantize: convert quantized weights to float32.
        keep_lora: keep a forecaster's LoRA weights separate; otherwise they are merged.
        job_files: directory with PAXml's text dumps; None: looked for beside the checkpoint.
        overrides: configuration values that the tree does not determine, by dotted name.
        also: `CKPT:RULES` specifications of further checkpoints.
        experiment: name of a published experiment whose settings are used.
        strict: refuse assumed settings that change activations or logits.
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
        """Convert paths to text, which the manifest can hold."""
        for name in ("rules", "job_files"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, fspath(path))
