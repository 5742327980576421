"""Settings of published learners: optimizer and schedule, as in their dumps.

Keys are fields of `OptimizerConfig`. A field is left out if it has Praxis' default and ours is the
same.
"""

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]


def _ramp(kind: str, warmup: int, end: int) -> Settings:
    return {
        "kind": f"linear_rampup_{kind}_decay",
        "parameters": {
            "warmup_steps": warmup, "decay_start": warmup + 1, "decay_end": end, "min_ratio": 0.1,
            "max": 1.0,
        },
    }  # fmt: skip


C4_ADAM: Settings = {  # c4.TransformerLmSpmdAdam
    "name": "adam", "learning_rate": 1e-3, "schedule": _ramp("exponential", 4000, 300_000),
    "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-6, "clip_threshold": 1.0, "weight_decay": 1e-3,
    "clip_gradient_norm_to_value": 5.0,
}  # fmt: skip
LM_CLOUD_ADAM: Settings = {**C4_ADAM, "learning_rate": 2.5e-4}
_GPT3: Settings = {
    "name": "adam", "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1,
    "clip_threshold": None, "clip_gradient_norm_to_value": 1.0,
}  # fmt: skip
GPT3_ADAM: Settings = {
    **_GPT3, "learning_rate": 6e-5, "schedule": _ramp("cosine", 265, 108_600),
}  # fmt: skip
GPT3_SMALL_ADAM: Settings = {**GPT3_ADAM, "learning_rate": 2e-4}
# The rate and schedule of the MLPerf classes depend on the global batch, and so on the number of
# devices of the job: they are unknown.
MLPERF_ADAM: Settings = _GPT3
NVIDIA_ADAM: Settings = {
    **C4_ADAM, "learning_rate": 6e-4, "schedule": _ramp("cosine", 0, 500_000), "beta2": 0.95,
    "epsilon": 1e-8, "clip_gradient_norm_to_value": 1.0,
}  # fmt: skip
_ADAFACTOR: Settings = {
    "name": "sharded_adafactor", "beta1": 0.9, "decay_method": "adam", "decay_adam": 0.99,
    "decay_pow": 0.0, "clip_threshold": 1.0, "weight_decay": 1e-3,
}  # fmt: skip
NVIDIA_ADAFACTOR: Settings = {
    **_ADAFACTOR, "learning_rate": 6e-4, "schedule": _ramp("cosine", 0, 500_000),
    "clip_gradient_norm_to_value": 1.0,
}  # fmt: skip
BERT_ADAFACTOR: Settings = {
    **_ADAFACTOR, "learning_rate": 2.5e-4, "schedule": _ramp("exponential", 4000, 100_000),
    "clip_gradient_norm_to_value": 5.0,
}  # fmt: skip
BERT_LARGE_ADAFACTOR: Settings = {**BERT_ADAFACTOR, "weight_decay": 0.01}
