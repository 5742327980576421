"""Runs our model on what was recorded, and keeps every intermediate value.

Read `settings`, `parameters` and `activations` first. `canonical` names intermediate values,
`outputs` computes what the original reports besides its losses, `trained` gives the model recorded
parameters, `stepping` takes optimizer steps.
"""

from parity_tests.run.activations import EMBEDS, TEXT, Found, Subject, run, sees_all
from parity_tests.run.canonical import BACKBONE
from parity_tests.run.parameters import flow_order, layer_of, place, renamed, to_our_tree
from parity_tests.run.settings import in_dtype, settings_with_origins, settled
from parity_tests.run.trained import Trained, belonging, with_parameters
