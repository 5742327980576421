"""Old names of modules that have moved, see `efficientids_flax.moved`."""

from collections.abc import Mapping

from efficientids_flax.moved import Rows

# fmt: off
MODULES: Rows = {
    "activations": ("run.activations", "run.canonical"),
    "alignment": ("compare.alignment",),
    "candidates": ("hints.candidates",),
    "cli": ("commands.parity",),
    "compare.judge": ("compare.difference",),
    "corrections": ("hints.corrections",),
    "operations": ("compare.operations",),
    "outputs": ("run.outputs",),
    "parameter_corrections": ("hints.parameter_corrections",),
    "parameters": ("run.parameters",),
    "recording_files": ("readers.own",),
    "report_html": ("report.html",),
    "settings": ("run.settings",),
    "tolerances": ("compare.tolerances",),
    "translate": ("compare.translate",),
}
RENAMED: Mapping[str, str] = {"cli:parity_check": "commands.parity:parity"}
# fmt: on
