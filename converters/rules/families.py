"""The families of checkpoints, how each is recognised, and its rule table."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from converters.arrays import Array
from converters.errors import MappingError
from converters.rules import efficientids, timesfm, transformer_lm
from converters.rules.apply import Mapped, RuledTree, apply_rules
from converters.rules.heads import ATTENTION, UNSAID, Said, Split, split_heads
from converters.rules.language import Ignore, Rule

FAMILIES = ("transformer_lm", "efficientids", "timesfm", "generic")
GENERIC = (Rule("{path*}", "{path*}"),)  # for any other tree: every leaf keeps its name


@dataclass(frozen=True)
class Table:
    """The rules for one checkpoint.

    Attributes:
        family: one of `FAMILIES`, or 'custom' for a user's table.
        rules: the rules for its parameters.
        ignores: the leaves that are left out.
    """

    family: str
    rules: tuple[Rule, ...]
    ignores: tuple[Ignore, ...] = ()

    def apply(self, arrays: Mapping[str, Array]) -> RuledTree:
        """Map a tree of parameters, or a tree of one optimizer slot with one leaf per parameter."""
        return apply_rules(arrays, self.rules, self.ignores)

    def apply_part(self, arrays: Mapping[str, Array]) -> tuple[Mapped, ...]:
        """Map an optimizer slot: it keeps its dtype and may lack frozen parameters."""
        optional = tuple(Rule(r.target, r.source, _without_cast(r.op)) for r in self.rules)
        return apply_rules(arrays, optional, self.ignores).leaves


def _without_cast(op: str) -> str:
    steps = (step.strip() for step in op.split(";"))
    return "; ".join(step for step in steps if not step.startswith("cast "))


def detect(paths: Mapping[str, object]) -> str:
    """The family of a tree, judged by its parameter paths alone."""
    if timesfm.prefix_of(paths) is not None:
        return "timesfm"
    if not any(path.startswith("lm/transformer/") for path in paths):
        return "generic"
    if any(path.startswith(efficientids.MARK) for path in paths):
        return "efficientids"
    return "transformer_lm"


def table_for(
    arrays: Mapping[str, Array],
    family: str | None,
    scan_layers: bool | None,
    nhd_post: bool | None = None,
    said: Said = UNSAID,
) -> tuple[Table, list[str]]:
    """Make the table for a checkpoint's family.

    Args:
        arrays: parameter path -> array.
        family: the user's choice; None to detect the family.
        scan_layers: whether the layers become stacked; None: as in the checkpoint.
        nhd_post: whether output projections of attention are [N, H, D]; None: judged by shapes.
        said: what is known about merged heads from elsewhere.

    Returns:
        The table, and notes. If a detected family's table does not fit, the table is 'generic'.

    Raises:
        MappingError: the family is unknown, or the layers or heads cannot be determined.
    """
    if family is not None and family not in FAMILIES:
        raise MappingError(f"unknown family '{family}'; known are {', '.join(FAMILIES)}")
    chosen, asked = family or detect(arrays), family is not None or scan_layers is not None
    if chosen == "generic":
        if scan_layers is not None:
            raise MappingError("--scan-layers and --no-scan-layers need a family with layers")
        return Table("generic", GENERIC), []
    try:
        shapes = {path: array.shape for path, array in arrays.items()}
        if chosen == "timesfm":
            table = Table(chosen, timesfm.rules(shapes, scan_layers))
            table.apply(arrays)
            return table, []
        form = transformer_lm.layer_form(arrays)
        if form is not None:
            form = replace(form, extra_axes=transformer_lm.extra_axes(form, shapes))
            apart = said.templates > 1 or transformer_lm.layers_differ(shapes)
            if scan_layers is None and form.name == "pipeline" and apart:
                scan_layers = False  # layers that differ cannot be in one stack
        if nhd_post is None:
            nhd_post = transformer_lm.has_nhd_post(shapes)
        split = split_heads(shapes, said)
        nhd_post = nhd_post and f"{ATTENTION}post/w" not in split.steps
        if chosen == "efficientids":
            rules = efficientids.rules(form, scan_layers, nhd_post, split.steps)
        else:
            rules = transformer_lm.rules(
                form,
                scan_layers,
                by_word="lm/softmax/w" in arrays,
                nhd_post=nhd_post,
                heads=split.steps,
                parallel=transformer_lm.has_parallel_norms(arrays),
            )
        table = Table(chosen, tuple(rules))
        table.apply(arrays)
        notes = _axes_guessed(split, shapes)
    except MappingError as error:
        if asked:
            raise
        notes: list[str] = []
        return generic_table(chosen, error, notes), notes
    return table, notes


def _axes_guessed(split: Split, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """A note if nothing determines the order of a kernel's axes."""
    if not split.guessed:
        return []
    order = "[N*H, D]" if "transpose" in split.steps[f"{ATTENTION}post/w"] else "[D, N*H]"
    return [
        f"{split.guessed} {list(shapes[split.guessed])}: taken as {order}, though its sizes fit the"
        " other order too; PAXml's model_params.txt would tell (output_proj_use_nhd_shape)"
    ]


def generic_table(family: str, error: MappingError, notes: list[str]) -> Table:
    """The table that fits every tree, used instead of a detected family's; a note says why."""
    notes.append(
        f"this looks like family {family}, but it is not one that is known here: the leaves keep "
        f"their PAXml names (family generic), and --family {family} makes this an error. {error}"
    )
    return Table("generic", GENERIC)
