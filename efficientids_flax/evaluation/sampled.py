"""Candidates for sampled metrics: the held-out items among randomly drawn ones.

Such metrics differ from those over the whole catalogue, and may rank models differently (Krichene
and Rendle 2020); so they have another name. Letters: B questions, I items.
"""

import numpy as np

from efficientids_flax.evaluation.questions import Questions


def candidates(
    questions: Questions, items: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """bool [B, I]: the held-out items of each question, and `count` others that were not seen.

    Drawn uniformly without replacement; fewer if there are not enough.

    Args:
        questions: the questions.
        items: I.
        count: number of items to draw for each question.
        rng: random number generator.
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
