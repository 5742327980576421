"""What the user decides about the content of a conversion's output."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import fspath
from typing import Any

OPTIMIZER_MODES = ("convert", "raw", "none")


@dataclass(frozen=True)
class PlanOptions:
    """What the user may decide about the output's content.

    Attributes:
        family: table to use; None to detect it.
        rules: file with a table of the user's own.
        scan_layers: layers stacked (True), one by one (False), or as they are (None).
        optimizer: 'convert' to optax, 'raw' for PAXml's own tree, or 'none'.
        dtype: parameters are cast to it; None keeps what is stored.
        dequantize: quantized weights become numbers again.
        keep_lora: low-rank additions of a forecaster stay beside its weights; else they are put
            into them.
        job_files: directory of PAXml's text dumps; None looks beside the checkpoint.
        overrides: configuration values that the tree cannot tell, by dotted name.
        also: `CKPT:RULES` specifications of further checkpoints.
        experiment: name of the published experiment whose settings are taken.
        strict: what was assumed and changes activations or logits is an error.
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
