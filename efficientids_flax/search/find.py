"""Finds settings of a model from sequences like those it was trained on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.search.climb import Climb, Progress
from efficientids_flax.search.decide import SURE, Judge, Verdict, paired, settled_origins
from efficientids_flax.search.invariances import Momentum
from efficientids_flax.search.losses import Losses
from efficientids_flax.search.moves import choices, unusable
from efficientids_flax.search.samples import LEAST, Samples
from efficientids_flax.settings.table import ModelConfig


@dataclass(frozen=True)
class Findings:
    """What samples reveal about a model's settings.

    Attributes:
        config: the configuration with the chosen values; unchanged if `tells` is False.
        verdicts: the conclusion about each setting that was tried.
        loss, loss_before: loss per label with the chosen and with the assumed values.
        baseline: loss per label of a model that predicts by label frequency alone.
        tells: whether the model is clearly better than that; if not, nothing can be concluded.
        runs: how many parts of the samples were run, over all configurations.
        finished: whether the search was completed in time.
        by_momentum: whether the optimizer's momentum was used.
    """

    config: ModelConfig
    verdicts: tuple[Verdict, ...]
    loss: float
    loss_before: float
    baseline: float
    tells: bool
    runs: int
    finished: bool
    by_momentum: bool

    @property
    def origins(self) -> dict[str, str]:
        """Dotted key -> origin, for the settings that the samples decide or change."""
        return settled_origins(self.verdicts) if self.tells else {}


def find_settings(
    config: ModelConfig,
    origins: Mapping[str, str],
    params: Mapping[str, Any],
    samples: Samples,
    *,
    momentum: Mapping[str, Any] | None = None,
    clustering: ClusteringInfo | None = None,
    also: Iterable[str] = (),
    seconds: float | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Try the values that the assumed settings can take, and report what the samples say of them.

    Args:
        config: the configuration, with assumed values.
        origins: dotted key -> origin; settings of origin 'assumed' are tried.
        params: nested dicts of arrays.
        samples: sequences like those of training, but unseen in training.
        momentum: the optimizer's momentum, a tree like `params`; see `invariances`.
        clustering: the clustering, for a recommender with a hierarchical softmax.
        also: keys that are tried although their value is known.
        seconds: time limit of the search, which then uses the best so far; None: no limit.
        progress: called with a line of text at each stage.

    Raises:
        ValueError: `also` names a setting that cannot be tried; the samples do not fit the model.
    """
    batch = samples.batch
    if samples.different < LEAST:
        raise ValueError(
            f"{samples.name}: {samples.different} different sequences among {samples.count};"
            f" differences between settings need at least {LEAST}, better 64"
        )
    barred = unusable(config, batch, batch["ids"].shape[1], causal=samples.answers_are_seen)
    able = choices(config, origins, also=also, without=barred)
    losses = Losses(config, params, samples, clustering)
    climb = Climb(losses.few, seconds, progress)
    best = climb.run(config, able)
    moments = None
    if momentum is not None:
        moments = Momentum(config, losses.params, momentum, samples, clustering)
    judge = Judge(losses, samples.weight, moments.distance if moments else None)
    chosen = judge.settle(best, able)
    weight = samples.weight
    baseline = frequencies(samples)
    ahead, error = paired(baseline - losses(chosen), weight)
    tells = bool(np.isfinite(ahead) and ahead > SURE * error)
    chosen = chosen if tells else config
    return Findings(
        chosen,
        tuple(judge.verdicts(chosen, able)),
        losses.mean(chosen),
        losses.mean(config),
        float(baseline.sum() / weight.sum()),
        tells,
        losses.runs,
        climb.finished,
        moments is not None,
    )


def frequencies(samples: Samples) -> np.ndarray:
    """Losses of a model that predicts by label frequency alone, float64 [B].

    Each label is left out of its own counts, and one is added for each distinct label (Laplace).
    """
    batch = samples.batch
    weights = np.asarray(batch["weights"], np.float64)
    labels = np.asarray(batch["labels"], np.int64)
    if "label_item_weights" in batch:  # words and items have separate numbers
        labels = np.where(np.asarray(batch["label_item_weights"]) > 0, -1 - labels, labels)
    there = weights > 0
    names, index = np.unique(labels[there], return_inverse=True)
    counts = np.bincount(index)
    found = np.zeros(weights.shape)
    found[there] = -np.log(counts[index] / (counts.sum() - 1 + len(names)))
    return (found * weights).sum(axis=1)
