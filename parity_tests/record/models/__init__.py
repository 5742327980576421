"""What is recorded: models and optimizers of PAXml, a line of a table each.

Read `experiments`, which trains one, and `edits`, of which variants are made; then the tables:
`variants` (with `others`, which need more than edits), `decoders`, and `layers`, whose layers
differ.
"""
