"""The options of an evaluation."""

from collections.abc import Collection
from dataclasses import dataclass

from efficientids_flax.config.record import Record
from efficientids_flax.inference.programs import Scoring

CUTOFFS = (1, 5, 10, 20)


@dataclass(frozen=True)
class EvaluationOptions(Record):
    """How recommendations are evaluated.

    Attributes:
        cutoffs: k of each metric; those larger than the catalogue are left out.
        exclude_seen: whether items that a user has seen are left out of the lists; held-out items
            stay.
        together: ask once for all held-out items of a user, after what comes before the first of
            them; else ask for each of them, after everything that comes before it.
        scoring: see `inference.Filters`.
        sampled: rank the held-out items among this many drawn items, instead of the whole
            catalogue; the metrics are then named `sampled_...`. 0: off.
        resamples, level, seed: of the bootstrap, see `bootstrap`; the seed also draws candidates.
        short, long: a history is short with at most, and long with at least, this many items;
            None: the shortest and the longest third.
    """

    cutoffs: tuple[int, ...] = CUTOFFS
    exclude_seen: bool = True
    together: bool = False
    scoring: Scoring = "log_probs"
    sampled: int = 0
    resamples: int = 1000
    level: float = 0.95
    seed: int = 0
    short: int | None = None
    long: int | None = None

    def problems(self) -> Collection[str]:
        """One sentence for each number out of range."""
        found = []
        if not self.cutoffs or min(self.cutoffs) < 1 or len(set(self.cutoffs)) < len(self.cutoffs):
            found.append(
                f"cutoffs: expected numbers above 0, each once, found {list(self.cutoffs)}"
            )
        for name in ("sampled", "resamples", "seed"):
            if getattr(self, name) < 0:
                found.append(f"{name}: expected at least 0, found {getattr(self, name)}")
        if not 0.0 < self.level < 1.0:
            found.append(f"level: expected between 0 and 1, found {self.level}")
        if self.scoring not in ("log_probs", "original"):
            found.append(f"scoring: expected log_probs or original, found {self.scoring!r}")
        if self.short is not None and self.long is not None and self.short >= self.long:
            found.append(f"long: expected above short = {self.short}, found {self.long}")
        return found
