"""Tables of what is recorded: models and optimizers of PAXml, one per row.

Read `experiments` first, which makes an experiment of a row, and `edits`, which change one. Then
read the tables: `variants` (with `others`, for which edits are not enough), `decoders`, and
`layers`, for models whose layers differ.
"""
