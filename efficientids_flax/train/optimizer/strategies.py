"""The three named strategies of training with a language model."""

from collections.abc import Mapping

from efficientids_flax.parameters import FROZEN_LM

# fmt: off
STRATEGIES: Mapping[str, tuple[str, ...]] = {
    # name                       frozen parameters
    "frozen_pretrained":         (FROZEN_LM,),  # items and adapters on a language model
    "full_finetune_pretrained":  (),            # everything, from pretrained weights
    "train_from_scratch":        (),            # everything, from random weights
}
# fmt: on


def frozen_parameters(strategy: str) -> tuple[str, ...]:
    """Patterns of the parameters that a strategy freezes.

    Raises:
        ValueError: there is no such strategy.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy: found '{strategy}', there are {', '.join(STRATEGIES)}")
    return STRATEGIES[strategy]


def needs_weights(strategy: str) -> bool:
    """Whether a strategy starts from pretrained weights."""
    frozen_parameters(strategy)
    return strategy.endswith("_pretrained")
