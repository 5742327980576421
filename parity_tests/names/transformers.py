"""Names of HuggingFace `transformers`: what a model returns with `output_hidden_states=True`.

`hidden_states/0` is the input of the first layer, `hidden_states/n` the output of layer n - 1; the
last of them is after the final norm.
"""

from parity_tests.names.table import Name, NameTable

TRANSFORMERS = NameTable(
    forms=(),
    inputs=(Name("hidden_states/{n}", "hidden_states/{n}", "BTD"),),
    layers=(),
    outputs=(
        Name("last_hidden_state", "final_norm", "BTD"),
        Name("outputs/logits", "outputs/logits", "BTV"),
        Name("outputs/loss", "outputs/avg_xent", "", kind="loss"),
        Name("outputs/generate", "outputs/generate", ""),  # the prompts with what follows
    ),
)
