"""Names of HuggingFace `transformers`: the results of a model with `output_hidden_states=True`.

`hidden_states/0` is the input of the first layer and `hidden_states/n` the output of layer n - 1,
except that the last one is the output of the final norm.
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
        Name("outputs/generate", "outputs/generate", ""),  # the prompts and the generated text
    ),
)
