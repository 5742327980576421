"""Mixtures of experts: Praxis' with limited capacity, HuggingFace's without a limit.

Letters: D model width, F hidden width of an expert, L layers, X experts.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from efficientids_flax.config.parts import Activation
from efficientids_flax.config.record import Record, positive


@dataclass(frozen=True)
class ClippedGateConfig(Record):
    """`min(gate, limit) sigmoid(gain min(gate, limit)) (clip(up, -limit, limit) + 1)` (gpt-oss).

    Attributes:
        limit: the gate is clipped from above, the up projection on both sides.
        gain: factor in the sigmoid.
    """

    limit: float = 7.0
    gain: float = 1.702

    def problems(self) -> Collection[str]:
        """The limit is positive."""
        return positive(self, "limit")


@dataclass(frozen=True)
class MoEConfig(Record):
    """Mixture of experts in place of the MLP of some layers (Praxis `TransformerFeedForwardMoe`).

    With the gating 'top_k', as in HuggingFace's families, each token goes to its best experts, no
    token is dropped, and tokens do not affect each other. The fields below `residual_weight` are
    for this gating; of those above it uses sizes, `gated`, `activation` and
    `load_balance_loss_weight`.

    Attributes:
        num_experts: X.
        layers: layers with experts, ascending.
        hidden_dims: F of an expert.
        gated, activation: as for the MLP; Praxis has separate settings.
        gating: how tokens and experts are matched. 'top2': tokens go to their two best experts, up
            to their capacity; 'dense_top2': without limit; 'top_k': see above; or experts choose
            their best tokens, of all or ('_v2') without padding.
        num_groups, min_group_size: tokens are routed within groups (not with 'dense_top2').
        capacity_factor: capacity of all experts relative to the number of tokens.
        expert_capacity: capacity of one expert, if that is more; 'expert_choice' ignores it.
        second_expert_policy: for 'top2': 'all' takes the second best; 'sampling' draws it (needs
            random numbers named 'routing'); 'random' is 'all' without second experts whose weight
            is below 1e-9.
        gating_logit_cap: tanh cap of the router's logits, for 'top2' only; 0: no cap.
        gating_level: route single tokens, or all tokens of a row by their mean ('sentence').
        load_balance_loss_weight: weight of the auxiliary loss of 'top2' and 'top_k'.
        padding_first: padding is set to zero before the experts, see `mlp_padding_first`.
        residual_weight: x + weight * experts(x); None: `mlp_residual_weight`.
        experts_per_token: number of experts of a token.
        scores: scores by which experts are chosen and weighted: 'softmax' over all of them;
            'chosen_softmax' over the chosen ones; 'sigmoid' of each.
        renormalize: weights of the chosen experts are divided by their sum.
        weights_scale: factor of the weights.
        choice_groups, groups_per_token: experts are in groups, and a token chooses among the best
            groups, by the sum of the two best scores in each (DeepSeek-V3).
        choice_bias: a parameter [X] is added to scores for the choice only. It has no gradient:
            training must leave it unchanged, or use it to balance experts (arXiv 2408.15664).
        router_bias, bias: biases of the router and of the experts' projections.
        clipped_gate: replaces `activation(gate) * up`.
        shared_dims: F of an additional MLP for all tokens; None: there is none. It is gated and
            activated like the MLP of other layers.
        shared_gate: the output of this MLP is weighted by the sigmoid of a product with x.
    """

    num_experts: int
    layers: tuple[int, ...]
    hidden_dims: int
    gated: bool = False
    activation: Activation = "relu"
    gating: Literal["top2", "expert_choice", "expert_choice_v2", "dense_top2", "top_k"] = "top2"
    num_groups: int = 1
    min_group_size: int | None = None
    capacity_factor: float | None = 2.0
    expert_capacity: int = 0
    second_expert_policy: Literal["all", "sampling", "random"] = "all"
    gating_logit_cap: float = 0.0
    gating_level: Literal["token", "sentence"] = "token"
    load_balance_loss_weight: float = 1.0
    padding_first: bool = False
    residual_weight: float | None = None
    experts_per_token: int = 2
    scores: Literal["softmax", "chosen_softmax", "sigmoid"] = "softmax"
    renormalize: bool = False
    weights_scale: float = 1.0
    choice_groups: int = 1
    groups_per_token: int = 1
    choice_bias: bool = False
    router_bias: bool = False
    bias: bool = False
    clipped_gate: ClippedGateConfig | None = None
    shared_dims: int | None = None
    shared_gate: bool = False

    def problems(self) -> Collection[str]:
        """Sizes are positive, layers ascend, there is capacity, and the gating fits the experts."""
        found = positive(
            self, "num_experts", "hidden_dims", "num_groups", "min_group_size", "experts_per_token",
            "choice_groups", "groups_per_token", "shared_dims",
        )  # fmt: skip
        for name in ("capacity_factor", "expert_capacity", "gating_logit_cap"):
            if (getattr(self, name) or 0) < 0:
                found.append(f"{name}: expected at least 0, found {getattr(self, name)}")
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            found.append(f"layers: expected ascending layer numbers, found {list(self.layers)}")
        if self.gating == "dense_top2" and self.gated:
            found.append("gated: experts of the gating dense_top2 have no gate, found true")
        if self.gating == "top_k":
            return found or self._choice_problems()
        only = self.gating == "expert_choice"
        if not self.capacity_factor and (only or not self.expert_capacity):
            found.append(
                f"capacity_factor: expected above 0 for the gating {self.gating}"
                f"{'' if only else ' without expert_capacity'}, found {self.capacity_factor}"
            )
        return found

    def _choice_problems(self) -> list[str]:
        """The options of 'top_k' fit together, and a token has enough experts to choose from."""
        found = []
        groups, chosen = self.choice_groups, self.groups_per_token
        if self.num_experts % groups or chosen > groups:
            found.append(
                f"choice_groups: {groups} groups, {chosen} of them chosen, do not fit"
                f" {self.num_experts} experts"
            )
        elif self.experts_per_token > self.num_experts // groups * chosen:
            found.append(
                f"experts_per_token: expected at most {self.num_experts // groups * chosen},"
                f" found {self.experts_per_token}"
            )
        elif groups > 1 and self.num_experts // groups < 2:
            found.append(
                "choice_groups: groups are chosen by their two best experts, but have only one"
            )
        if self.clipped_gate is not None and not self.gated:
            found.append("clipped_gate: needs gated")
        if self.shared_gate and self.shared_dims is None:
            found.append("shared_gate: needs shared_dims")
        return found
