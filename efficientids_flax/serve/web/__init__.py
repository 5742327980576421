"""HTTP: which path answers what, what a request may hold, who may ask, what is wrong with it.

Read `problems`, how errors are told, `messages`, what requests and responses are made of, `asking`,
from one to questions and from answers to the other, `app`, the paths, `pages`, those for people,
`guard`, what stands around the application, with `tokens`; `metrics` is what Prometheus is told.
"""

from efficientids_flax.serve.web.app import make_app
from efficientids_flax.serve.web.guard import Guard
from efficientids_flax.serve.web.metrics import Metrics
from efficientids_flax.serve.web.problems import CONTENT_TYPE, ProblemError
from efficientids_flax.serve.web.tokens import ADMIN_TOKEN, TOKEN, Secrets, read_secrets

__all__ = [
    "ADMIN_TOKEN",
    "CONTENT_TYPE",
    "TOKEN",
    "Guard",
    "Metrics",
    "ProblemError",
    "Secrets",
    "make_app",
    "read_secrets",
]
