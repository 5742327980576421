"""What a model and its training are made of: frozen records that travel as JSON.

Read `record`, what all of them can do, then `backbone` with its `parts`, `positions`, `experts`,
`checks`, `layers` and `lora`, `recommender`, `forecaster`, and `optimizer`.
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
