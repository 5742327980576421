"""Runs our model on what was recorded: settings, parameters, every intermediate value.

Read `settings`, `parameters`, `activations`; `outputs` has what the original reports beside its
losses, `trained` the model with recorded parameters and its optimizer, `stepping` a step of it.
"""

from parity_tests.run.activations import BACKBONE, EMBEDS, TEXT, Found, Subject, run, sees_all
from parity_tests.run.parameters import flow_order, layer_of, place, renamed, to_our_tree
from parity_tests.run.settings import in_dtype, settings_with_origins, settled
from parity_tests.run.trained import Trained, belonging, with_parameters
