"""The recommender: from a batch of words and items to scores, losses and metrics.

Read `models`, the public class, then `item_model`, what all recommenders share, `simple_model`, and
the folders `head` and `clustering`. `batch` and `model_checks` validate arguments. `touching` finds
the rows of the item table that get gradients, and `gathering` copies table rows fast. Evaluation:
`labelled` picks the labelled positions of batches, `measuring` computes their sums, `metrics` has
the sums and their means. `vectors` reads files of item embeddings. `hierarchical` and `embeddings`
re-export parts of `head` under the paths of the public API.
"""
