"""Recommendations from a model: `recommend(model, params, histories, k)`.

Read `prompts`, the sequence that asks, then `ranker`; `commands` has what the shell calls.
"""

from efficientids_flax.inference.prompts import Prompts, make_prompts
from efficientids_flax.inference.ranker import Ranker, Recommendations, recommend

__all__ = ["Prompts", "Ranker", "Recommendations", "make_prompts", "recommend"]
