"""Low-rank additions to a decoder's projections (LoRA, arXiv 2106.09685)."""

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from efficientids_flax.config.record import Record, positive


@dataclass(frozen=True)
class LoraConfig(Record):
    """The projections that compute `x W + alpha / rank * x A B`.

    Attributes:
        rank: columns of A, rows of B.
        alpha: None: the rank, so that the factor is 1.
        targets: patterns (`*`, `?`) of projections in a layer: 'attention/query', 'mlp/down' ...
    """

    rank: int
    alpha: float | None = None
    targets: tuple[str, ...] = ("attention/*",)

    @property
    def scale(self) -> float:
        """The factor of `x A B`."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def adapts(self, projection: str) -> bool:
        """Whether a projection, such as 'attention/query', gets an addition."""
        return any(fnmatchcase(projection, pattern) for pattern in self.targets)

    def problems(self) -> Collection[str]:
        """Sizes are positive, and there are targets."""
        found = positive(self, "rank", "alpha")
        return found if self.targets else [*found, "targets: expected at least one, found none"]

    def unfit(self, projections: Collection[str]) -> list[str]:
        """A problem for each pattern that matches none of a decoder's projections."""
        return [
            f"lora.targets: '{pattern}' fits none of {', '.join(projections)}"
            for pattern in self.targets
            if not any(fnmatchcase(projection, pattern) for projection in projections)
        ]
