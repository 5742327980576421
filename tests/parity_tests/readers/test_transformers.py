"""Folders of HuggingFace models: passes without hidden states, and required arrays."""

import numpy as np
import pytest

from parity_tests.readers import read
from parity_tests.recording import RecordingError

LOGITS = np.zeros((1, 3, 5), np.float32)
IDS = np.arange(3)[None]


def written(folder, **arrays):
    np.savez(folder / "reference.npz", **{k.replace("__", "/"): v for k, v in arrays.items()})
    return folder


def test_a_pass_may_have_its_logits_alone(tmp_path):
    states = np.zeros((3, 1, 3, 4), np.float32)
    arrays = {"input_ids": IDS, "full__logits": LOGITS, "full__hidden_states": states}
    long = {"long__logits": np.zeros((1, 9, 5)), "long__input_ids": np.arange(9)[None]}
    found = {one.name: one for one in read(written(tmp_path, **arrays, **long)).passes}
    assert [*found["full"].activations] == [f"hidden_states/{n}" for n in range(3)]
    assert found["long"].activations == {}
    assert found["long"].outputs["logits"].shape == (1, 9, 5)
    np.testing.assert_array_equal(found["long"].inputs["ids"], np.arange(9)[None])


def test_a_model_without_a_head_has_its_states_alone(tmp_path):
    states = np.zeros((3, 1, 3, 4), np.float32)
    arrays = {"full__hidden_states": states, "full__last_hidden_state": states[-1]}
    (one,) = read(written(tmp_path, input_ids=IDS, **arrays)).passes
    assert [*one.activations] == [*(f"hidden_states/{n}" for n in range(3)), "last_hidden_state"]
    assert one.outputs == {}


def test_ids_are_asked_for(tmp_path):
    with pytest.raises(RecordingError, match="input_ids, full/input_ids: missing"):
        read(written(tmp_path, full__logits=LOGITS))
