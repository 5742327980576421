"""Names of rematerialisation policies; that they change no number is in test_scanned.py."""

import jax
import pytest

from efficientids_flax.backbone.decoder import REMAT_POLICIES, Decoder
from tests.efficientids_flax.backbone.small_decoders import VARIANTS


@pytest.mark.parametrize("policy", ["nothing", "save_only_these_names", ""])
def test_a_policy_that_is_not_known(policy):
    """One that takes arguments is none: it would be called as if it were, and save everything."""
    with pytest.raises(ValueError, match=f"remat: found '{policy}'.* one of 'nothing_saveable'"):
        Decoder(VARIANTS["llama"], policy)


@pytest.mark.parametrize("policy", REMAT_POLICIES)
def test_policies_are_those_of_jax(policy):
    """One tells of an operation whether its result is saved."""
    saved = getattr(jax.checkpoint_policies, policy)(jax.lax.exp_p)
    assert saved is (policy == "everything_saveable")
