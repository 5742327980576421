"""HTTP: paths, the form of requests and responses, access, and errors.

Read `problems`, how errors are reported; `messages`, the models of requests and responses;
`asking`, from requests to questions and from answers to responses; `app`, the paths; `pages`, those
for people; `guard`, the checks around the application, with `tokens`; and `metrics`, for
Prometheus.
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
