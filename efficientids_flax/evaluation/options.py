"""What there is to say of an evaluation."""

from collections.abc import Collection
from dataclasses import dataclass

from efficientids_flax.config.record import Record
from efficientids_flax.inference.programs import Scoring

CUTOFFS = (1, 5, 10, 20)


@dataclass(frozen=True)
class EvaluationOptions(Record):
    """How recommendations are evaluated.

    Attributes:
        cutoffs: k of each metric; those beyond the catalogue are left out.
        exclude_seen: whether what a user has had is left out of the lists; what was held out stays.
        together: all held-out items of a user are asked for at once, after what stands before the
            first of them; else each by itself, after all that stands before it.
        scoring: see `inference.Filters`.
        sampled: rank among so many items that are drawn for each list, and the held-out ones, in
            place of the whole catalogue; the metrics are then called `sampled_...`. 0: none.
        resamples, level, seed: of the bootstrap, see `bootstrap`; the seed draws candidates too.
        short, long: a history of at most so many items is short, one of at least so many long;
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
        """Numbers are in their ranges."""
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
