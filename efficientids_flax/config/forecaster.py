"""The configuration of a forecaster: patches of a series in, a mean and quantiles out (TimesFM).

Letters: D model width, F hidden width, N heads, K head width, P points of a patch, H points that
stand at a patch as its forecast, Q quantiles.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from efficientids_flax.config.backbone import BackboneConfig
from efficientids_flax.config.lora import LoraConfig
from efficientids_flax.config.parts import DType, NormConfig, NormPlacesConfig
from efficientids_flax.config.record import Record, positive

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The quantiles of all public TimesFM models."""


@dataclass(frozen=True)
class TimesFMConfig(Record):
    """A decoder over the patches of a series (arXiv 2310.10688, `PatchedTimeSeriesDecoder`).

    Attributes:
        num_layers, model_dims, hidden_dims, num_heads, head_dim: L, D, F (of layers and of the
            blocks at both ends), N, K.
        patch_length: P.
        horizon_length: H, how many points one step forecasts at the most.
        quantiles: Q levels in (0, 1), in the order in which the model gives them, after the mean.
        context_length: how many points of a series a forecast looks at, unless it is told
            otherwise; a multiple of P.
        use_positional_embedding: sinusoids are added to the patches (1.0 does, 2.0 does not).
        num_frequencies: rows of the table of frequencies; 0 for a model without one.
        statistics: how the deviation is computed by which a series is normalised: 'moments' is
            E[x^2] - mean^2, below `tolerance` 1 (the releases 1.2 and 1.3, with which the public
            models are run); 'centred' is the mean of (x - mean)^2, at least `tolerance` (the newest
            source, and transformers). The first loses all digits where the mean is a few thousand
            deviations.
        tolerance: see `statistics`.
        pad_value: of points that are missing.
        norm_epsilon: of all norms.
        position_min_timescale, position_max_timescale: of the sinusoids.
        scan_layers: layers stacked on a leading axis L, and scanned.
        dtype, param_dtype: of the computation and of the parameters; statistics are float32.
        lora: low-rank additions to the projections of the layers, see `backbone.lora`.
    """

    num_layers: int
    model_dims: int
    hidden_dims: int
    num_heads: int
    head_dim: int
    patch_length: int
    horizon_length: int
    quantiles: tuple[float, ...] = DECILES
    context_length: int = 512
    use_positional_embedding: bool = True
    num_frequencies: int = 3
    statistics: Literal["moments", "centred"] = "moments"
    tolerance: float = 1e-7
    pad_value: float = 1123581321.0
    norm_epsilon: float = 1e-6
    position_min_timescale: float = 1.0
    position_max_timescale: float = 10_000.0
    scan_layers: bool = False
    dtype: DType = "float32"
    param_dtype: DType = "float32"
    lora: LoraConfig | None = None

    def problems(self) -> Collection[str]:
        """Sizes are positive, levels are levels, the context is cut into patches without a rest."""
        found = positive(
            self, "num_layers", "model_dims", "hidden_dims", "num_heads", "head_dim",
            "patch_length", "horizon_length", "context_length", "tolerance", "norm_epsilon",
            "position_min_timescale", "position_max_timescale",
        )  # fmt: skip
        if found:
            return found
        if self.num_frequencies < 0:
            found.append(f"num_frequencies: expected at least 0, found {self.num_frequencies}")
        if wrong := [level for level in self.quantiles if not 0 < level < 1]:
            found.append(f"quantiles: expected levels between 0 and 1, found {wrong}")
        if len(set(self.quantiles)) < len(self.quantiles):
            found.append(f"quantiles: a level is there twice, in {list(self.quantiles)}")
        if self.context_length % self.patch_length:
            found.append(
                f"context_length: expected a multiple of patch_length = {self.patch_length},"
                f" found {self.context_length}"
            )
        return found + (self.lora.unfit(self.backbone.projections) if self.lora else [])

    @property
    def num_outputs(self) -> int:
        """1 + Q: the mean, then the quantiles."""
        return 1 + len(self.quantiles)

    @property
    def backbone(self) -> BackboneConfig:
        """The decoder layers: RMS norm before attention, LayerNorm before the MLP, none at last."""
        return _backbone(self)


@lru_cache(maxsize=64)
def _backbone(config: TimesFMConfig) -> BackboneConfig:
    return BackboneConfig(
        vocab_size=0,
        num_layers=config.num_layers,
        model_dims=config.model_dims,
        hidden_dims=config.hidden_dims,
        num_heads=config.num_heads,
        num_kv_heads=config.num_heads,
        head_dim=config.head_dim,
        scan_layers=config.scan_layers,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        norm="rms_norm",
        norm_epsilon=config.norm_epsilon,
        # Praxis' RmsNorm keeps its scale as it is, its LayerNorm less one.
        norms=NormPlacesConfig(mlp=NormConfig(kind="layer_norm", bias=True, scale_plus_one=True)),
        final_norm=False,
        qkv_bias=True,
        attention_out_bias=True,
        query_scaling="per_dim_scale",
        activation="relu",
        mlp_bias=True,
        lora=config.lora,
    )
