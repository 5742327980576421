"""Name tables: layers are unstacked, names are translated, and unknown names stay visible."""

import numpy as np
import pytest

from efficientids_flax.config import BackboneConfig
from parity_tests.compare.translate import wanted
from parity_tests.names import TABLES
from parity_tests.names.table import pipelined, repeated
from parity_tests.readers.paxml import call_name, path
from parity_tests.readers.transformers import segments
from parity_tests.recording import Pass

CONFIG = BackboneConfig(
    vocab_size=8, num_layers=4, model_dims=4, hidden_dims=4, num_heads=2, num_kv_heads=2,
    head_dim=2, scan_layers=True, layers_per_block=2,
)  # fmt: skip


def find(activations: dict[str, np.ndarray], ours: tuple[str, ...] = ()) -> list:
    values = dict.fromkeys(ours, np.zeros(1))
    return wanted(Pass("", {}, activations), TABLES["praxis"], CONFIG, values)


def test_blocks_of_layers():
    stack = np.arange(2 * 3).reshape(2, 3)
    assert [(i, v.tolist()) for i, v in repeated(stack, 1, 2)] == [(1, [0, 1, 2]), (3, [3, 4, 5])]


def test_microbatches_of_a_pipeline():
    """Stage s sees microbatch m in iteration m + s; microbatches are strided over the batch."""
    batch, stages, microbatches = 6, 3, 2
    values = np.full((microbatches + stages - 1, stages, batch // microbatches), -1)
    for stage in range(stages):
        for number in range(microbatches):
            values[number + stage, stage] = 100 * stage + np.arange(number, batch, microbatches)
    found = list(pipelined(values, 0, 1))
    assert [layer for layer, _ in found] == [0, 1, 2]
    for stage, rows in found:
        assert rows.tolist() == (100 * stage + np.arange(batch)).tolist()


def test_layers_are_in_the_order_of_the_data_flow():
    block = np.zeros((2, 1, 3, 4), np.float32)
    names = {
        "lm/final_ln": block[0],
        "lm/transformer/repeat/sub/x_layers_1/ff_layer": block,
        "lm/transformer/repeat/sub/x_layers_0/self_attention/query": block,
        "lm/embedding_lookup/einsum": block[0],
    }
    found = [(item.ours, item.layer) for item in find(names)]
    assert found == [
        ("word_rows", None),
        ("layers_0/attention/query", 0),
        ("layers_1", 1),
        ("layers_2/attention/query", 2),
        ("layers_3", 3),
        ("final_norm", None),
    ]


def test_of_lines_that_fit_the_one_that_we_compute_counts():
    name = {"lm/transformer/x_layers_1/ff_layer/residual_dropout": np.zeros(1)}
    assert find(name)[0].ours == "layers_1/mlp"
    assert find(name, ("layers_1/moe",))[0].ours == "layers_1/moe"


def test_unknown_names_are_kept_and_ignored_ones_have_a_reason():
    (unknown,) = find({"lm/transformer/x_layers_0/new": np.zeros(1)})
    assert unknown.row is None and unknown.ignored is None
    (ignored,) = find({"lm/transformer/x_layers_0/ff_layer/prng_key": np.zeros(1)})
    assert ignored.ignored == "random bits"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("['lm']['x_layers_0']['__call__'][0][1]['self_atten']", "lm/x_layers_0/1/self_atten"),
        ("['lm']['rotary']['__call__'][1]", "lm/rotary#1"),
        ("['__call__'][0][0]['aux_loss'][1]", "0/aux_loss/1"),
        (".mdl_vars['params']['lm']['w']", "mdl_vars/params/lm/w"),
        ("lm/transformer/__call__/0", "lm/transformer"),
    ],
)
def test_names_as_recorders_write_them(key: str, name: str):
    assert call_name(path(key)) == name


def test_packed_positions_start_segments_anew():
    positions = np.array([[0, 1, 2, 0, 1, 0], [7, 8, 9, 10, 11, 12]])
    assert segments(positions).tolist() == [[1, 1, 1, 2, 2, 3], [1] * 6]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_every_pattern_compiles_and_every_reason_is_said(table):
    for row in (*table.inputs, *table.layers, *table.outputs):
        assert row.pattern.pattern
    assert all(line.reason for line in table.ignored)
