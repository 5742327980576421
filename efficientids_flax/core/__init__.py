"""The recommender: what it does with a batch, from words and items to scores, losses, metrics.

Read `models`, its public faces, then `item_model`, what they share, `simple_model`, and the folders
`head` and `clustering`; `batch` and `model_checks` say what does not fit, `touching` which rows of
the item table it has gradients by, `labelled` what an evaluation asks of a batch, `measuring` what
it adds up, `metrics` the sums, `vectors` reads files of item embeddings, `gathering` copies rows of
a table. `hierarchical` and `embeddings` are where users were promised parts of `head`.
"""
