"""Configurations of models and of training: frozen records that are stored as JSON.

Read `record`, the common base class; `backbone` with its `parts`, `positions`, `experts`, `checks`,
`layers` and `lora`; then `recommender`, `forecaster`, and `optimizer`.
"""

from efficientids_flax.config.backbone import BackboneConfig
from efficientids_flax.config.experts import ClippedGateConfig, MoEConfig
from efficientids_flax.config.forecaster import TimesFMConfig
from efficientids_flax.config.lora import LoraConfig
from efficientids_flax.config.optimizer import OptimizerConfig, ScheduleConfig
from efficientids_flax.config.parts import (
    AdapterConfig,
    LatentAttentionConfig,
    LayerSetting,
    NormConfig,
    NormPlace,
    NormPlacesConfig,
)
from efficientids_flax.config.positions import (
    AlibiConfig,
    PositionScalingConfig,
    RelativeBiasConfig,
    RotaryConfig,
    RotaryScalingConfig,
)
from efficientids_flax.config.recommender import (
    EfficientIDSConfig,
    PromptConfig,
    SampledSoftmaxConfig,
)

__all__ = [
    "AdapterConfig",
    "AlibiConfig",
    "BackboneConfig",
    "ClippedGateConfig",
    "EfficientIDSConfig",
    "LatentAttentionConfig",
    "LayerSetting",
    "LoraConfig",
    "MoEConfig",
    "NormConfig",
    "NormPlace",
    "NormPlacesConfig",
    "OptimizerConfig",
    "PositionScalingConfig",
    "PromptConfig",
    "RelativeBiasConfig",
    "RotaryConfig",
    "RotaryScalingConfig",
    "SampledSoftmaxConfig",
    "ScheduleConfig",
    "TimesFMConfig",
]
