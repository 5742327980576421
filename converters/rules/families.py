"""Which table a checkpoint wants: the families, how each is known, and their rules."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from converters.arrays import Array
from converters.errors import MappingError
from converters.rules import efficientids, timesfm, transformer_lm
from converters.rules.apply import Mapped, RuledTree, apply_rules
from converters.rules.heads import ATTENTION, UNSAID, Said, Split, split_heads
from converters.rules.language import Ignore, Rule

FAMILIES = ("transformer_lm", "efficientids", "timesfm", "generic")
GENERIC = (Rule("{path*}", "{path*}"),)  # any other tree: leaf for leaf, under the names it has


@dataclass(frozen=True)
class Table:
    """The rules for one checkpoint.

    Attributes:
        family: one of `FAMILIES`, or 'custom' for a user's table.
        rules: for its parameters.
        ignores: what is left out.
    """

    family: str
    rules: tuple[Rule, ...]
    ignores: tuple[Ignore, ...] = ()

    def apply(self, arrays: Mapping[str, Array]) -> RuledTree:
        """Map a tree of parameters, or of one slot of the optimizer, one a parameter."""
        return apply_rules(arrays, self.rules, self.ignores)

    def apply_part(self, arrays: Mapping[str, Array]) -> tuple[Mapped, ...]:
        """The same for a slot of the optimizer: no frozen parameters, and its own dtype."""
        optional = tuple(Rule(r.target, r.source, _without_cast(r.op)) for r in self.rules)
        return apply_rules(arrays, optional, self.ignores).leaves


def _without_cast(op: str) -> str:
    steps = (step.strip() for step in op.split(";"))
    return "; ".join(step for step in steps if not step.startswith("cast "))


def detect(paths: Mapping[str, object]) -> str:
    """The family that parameter paths belong to by their names alone."""
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
    """The table of a checkpoint's family.

    Args:
        arrays: parameter path -> array.
        family: as the user says; None to detect it.
        scan_layers: whether layers become stacked (None: as they are).
        nhd_post: whether output projections of attention are [N, H, D]; None: the shapes tell.
        said: of merged heads.

    Returns:
        The table, and notes: a detected family whose table does not fit gives way to 'generic'.

    Raises:
        MappingError: an unknown family, or layers that cannot be told.
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
                scan_layers = False  # one stack of all layers would have to hold unlike ones
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
    """A note where the order of a kernel's axes is told by nothing."""
    if not split.guessed:
        return []
    order = "[N*H, D]" if "transpose" in split.steps[f"{ATTENTION}post/w"] else "[D, N*H]"
    return [
        f"{split.guessed} {list(shapes[split.guessed])}: taken as {order}, though its sizes fit the"
        " other order too; PAXml's model_params.txt would tell (output_proj_use_nhd_shape)"
    ]


def generic_table(family: str, error: MappingError, notes: list[str]) -> Table:
    """The table that fits every tree, in place of a detected family's; a note says why."""
    notes.append(
        f"this looks like family {family}, but it is not one that is known here: the leaves keep "
        f"their PAXml names (family generic), and --family {family} makes this an error. {error}"
    )
    return Table("generic", GENERIC)
