"""Candidates of sampled metrics: what was held out, among items that are drawn.

Such metrics are not those of the catalogue, and order models otherwise (Krichene and Rendle 2020);
hence their own name. Letters: B questions, I items.
"""

import numpy as np

from efficientids_flax.evaluation.questions import Questions


def candidates(
    questions: Questions, items: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """bool [B, I]: the held-out items of each, and `count` others that were not seen.

    Fewer where there are not as many. Drawn without replacement, each item equally likely.

    Args:
        questions: whose.
        items: I.
        count: drawn for each.
        rng: draws them.
    """
    found = np.zeros((len(questions.users), items), bool)
    for row, (held_out, seen) in enumerate(zip(questions.held_out, questions.seen, strict=True)):
        own = held_out[(held_out >= 0) & (held_out < items)]
        taken = np.unique(np.concatenate([own, seen[(seen >= 0) & (seen < items)]]))
        left = items - len(taken)
        drawn = rng.choice(left, min(count, left), replace=False)
        # The n-th item that is not taken.
        drawn += np.searchsorted(taken - np.arange(len(taken)), drawn, side="right")
        found[row, drawn] = True
        found[row, own] = True
    return found
