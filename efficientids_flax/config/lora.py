"""Low-rank additions to a decoder's projections (LoRA, arXiv 2106.09685)."""

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from efficientids_flax.config.record import Record, positive


@dataclass(frozen=True)
class LoraConfig(Record):
    """Which projections get an addition `alpha / rank * x A B` to `x W`.

    Attributes:
        rank: columns of A, rows of B.
        alpha: weight of the additions; None: the rank, so that it is 1.
        targets: patterns (`*`, `?`) of projections in a layer: 'attention/query', 'mlp/down' ...
    """

    rank: int
    alpha: float | None = None
    targets: tuple[str, ...] = ("attention/*",)

    @property
    def scale(self) -> float:
        """What `x A B` is multiplied by."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def adapts(self, projection: str) -> bool:
        """Whether a projection, such as 'attention/query', gets an addition."""
        return any(fnmatchcase(projection, pattern) for pattern in self.targets)

    def problems(self) -> Collection[str]:
        """Sizes are positive, and there are targets."""
        found = positive(self, "rank", "alpha")
        return found if self.targets else [*found, "targets: expected at least one, found none"]

    def unfit(self, projections: Collection[str]) -> list[str]:
        """A problem for each pattern that fits none of a decoder's projections."""
        return [
            f"lora.targets: '{pattern}' fits none of {', '.join(projections)}"
            for pattern in self.targets
            if not any(fnmatchcase(projection, pattern) for projection in projections)
        ]
