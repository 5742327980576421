"""Recommendations from a model: `recommend(model, params, histories, k)`.

Read `prompts`, the model's input for a history, and `around`, the tokens around a history in it,
then `programs`, the functions to compile, and `ranker`, which runs them. `shaped` compiles
everything before the first question, `opening` loads a recommender, `commands` is for the shell.
"""

from efficientids_flax.inference.around import most_history, trained_history
from efficientids_flax.inference.opening import open_recommender
from efficientids_flax.inference.prompts import Prompts, make_prompts
from efficientids_flax.inference.ranker import Ranker, Recommendations, recommend
from efficientids_flax.inference.shaped import Question, ShapedRanker, Shapes, Sizes, shapes_for

__all__ = [
    "Prompts",
    "Question",
    "Ranker",
    "Recommendations",
    "ShapedRanker",
    "Shapes",
    "Sizes",
    "make_prompts",
    "most_history",
    "open_recommender",
    "recommend",
    "shapes_for",
    "trained_history",
]
