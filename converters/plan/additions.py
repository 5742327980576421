"""LoRA and DoRA weights of a TimesFM tree: merged into the weights beside them, or kept."""

from collections.abc import Mapping

from converters.arrays import Array, LowRank
from converters.errors import MappingError
from converters.rules import LORA_LEAVES, RuledTree, forecaster_prefix
from efficientids_flax.config import LoraConfig
from efficientids_flax.parameters import DECODER

A, B, MAGNITUDE = LORA_LEAVES


def with_additions(
    params: Mapping[str, Array], keep: bool, notes: list[str]
) -> tuple[dict[str, Array], bool]:
    """Merge the LoRA weights of a TimesFM tree into the weights beside them.

    Args:
        params: parameter path -> array.
        keep: keep the LoRA weights as they are.
        notes: receives what the user should know.

    Returns:
        The parameters, and whether any were merged. Trees of other families are unchanged.

    Raises:
        MappingError: LoRA weights without a weight to merge into, or of shapes that do not fit it;
            lists all problems.
    """
    found = dict(params)
    places = {path.rpartition("/")[0] for path in found if path.rpartition("/")[2] in LORA_LEAVES}
    if not places or keep or forecaster_prefix(found) is None:
        return found, False
    problems: list[str] = []
    scaled = 0
    for place in sorted(places):
        first, second = found.pop(f"{place}/{A}", None), found.pop(f"{place}/{B}", None)
        magnitude = found.pop(f"{place}/{MAGNITUDE}", None)
        weight = found.get(f"{place}/w")
        if weight is None or first is None or second is None:
            problems.append(f"{place}: expected w, {A} and {B}, one of which is missing")
            continue
        try:
            found[f"{place}/w"] = LowRank(weight, first, second, magnitude)
        except ValueError as error:
            problems.append(f"{place}: {error}")
        scaled += magnitude is not None
    if problems:
        head = f"low-rank additions: {len(problems)} problem(s):"
        raise MappingError("\n  ".join([head, *problems]))
    kind = "LoRA" if not scaled else "DoRA" if scaled == len(places) else "LoRA and DoRA"
    notes.append(
        f"low-rank additions ({kind}) were put into {len(places)} weights, as the original computes"
        " them; --keep-lora leaves them beside the weights"
    )
    return found, True


def kept_additions(tree: RuledTree) -> tuple[LoraConfig | None, str | None]:
    """The configuration for LoRA weights that are kept, or why no model of ours computes them.

    Args:
        tree: a TimesFM tree after its rules, LoRA weights included.

    Returns:
        (configuration or None without LoRA weights, reason or None if there is none).
    """
    places: dict[str, set[str]] = {}
    ranks: set[int] = set()
    for leaf in tree.leaves:
        place, _, name = leaf.target.rpartition("/")
        if name == MAGNITUDE:
            return None, "the additions are DoRA's, whose norms our layers do not compute"
        if name == A:
            layer, _, projection = place.removeprefix(DECODER).partition("/")
            places.setdefault(projection, set()).add(layer)
            ranks.add(leaf.array.shape[-1])
    if not places:
        return None, None
    if len(ranks) > 1 or len(set(map(frozenset, places.values()))) > 1:
        return None, "the additions differ between layers or in their ranks"
    return LoraConfig(ranks.pop(), targets=tuple(sorted(places))), None
