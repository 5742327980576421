"""The command inspect-paxml."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from converters.commands.inspect import inspect
from tests.converters import stored
from tests.converters.invoking import invoke

Recording = Callable[[str], Path]
LLAMA, REPEATED, RECOMMENDER = "Llama_v11orbaxnames", "LlamaRepeat_gda", "b_everywhere"


@pytest.mark.parametrize(
    ("name", "layout", "version", "era", "optimizer", "family"),
    [
        (REPEATED, "zarr", "1.1", "paxml 1.4 or newer", ["adam"], "transformer_lm"),
        ("LlamaRepeat_paxml110_ocdbt", "ocdbt", "1.2", "paxml 1.1", ["adam"], "transformer_lm"),
        ("LlamaAdafactor_flax", "msgpack", "1.1", "paxml 1.1 - 1.4", ["sharded_adafactor"],
         "transformer_lm"),
        ("GptRepeat_v00gda_gzip", "zarr", "0.0", "paxml 0.1 - 0.2", ["adam"], "transformer_lm"),
        ("LlamaRepeatEma_v00flax_file", "msgpack", "0.0", "paxml 0.1 - 0.2", ["adam", "ema"],
         "transformer_lm"),
        (LLAMA, "zarr", "1.1", "paxml 0.3", ["adam"], "transformer_lm"),
        ("LlamaRepeat_paxml100", "zarr", "1.0", "paxml 0.4 - 1.0", ["adam"], "transformer_lm"),
        ("LlamaSgdm_ocdbt", "ocdbt", "1.2", "paxml 1.4 or newer", ["momentum"],
         "transformer_lm"),
        ("LlamaWeightsOnly_flax", "msgpack", "1.1", "paxml 1.1 - 1.4", [], "transformer_lm"),
        ("BatchNormNonTrainable_ocdbt", "ocdbt", "1.2", "paxml 1.4 or newer", [], "generic"),
        (RECOMMENDER, "ocdbt", "1.2", "paxml 1.4 or newer", ["sharded_adafactor"],
         "efficientids"),
    ],
)  # fmt: skip
def test_says_what_is_there(
    name: str,
    layout: str,
    version: str,
    era: str,
    optimizer: list[str],
    family: str,
    recording: Recording,
):
    case = recording(name)
    result = invoke(inspect, case / "checkpoint", "--json")
    about = json.loads(result.stdout)
    found = [about[key] for key in ("layout", "version", "era", "optimizer", "family")]
    assert found == [layout, version, era, optimizer, family]
    described = stored.read_manifest(case)["leaves"]
    assert {leaf["path"]: leaf["shape"] for leaf in about["leaves"]} == {
        path: leaf["shape"] for path, leaf in described.items()
    }
    text = invoke(inspect, case / "checkpoint").stdout
    lines = dict(re.findall(r"^(layout|step|leaves|optimizer|family) +(.*)$", text, re.M))
    assert lines["layout"] == f"{layout}, version {version} ({era})"
    assert lines["step"] == str(about["step"])
    assert lines["leaves"].startswith(f"{len(described)}, ")
    assert lines["optimizer"] == (", ".join(optimizer) or "none")
    assert lines["family"] == family
    for path in described:
        assert re.search(rf"^{re.escape(path)} +\[", text, re.M)


def test_reads_no_array(editable: Callable[[str], Path]):
    checkpoint = editable(REPEATED)
    for chunk in checkpoint.glob("*/state/*/0*"):
        if chunk.parent.name != "step":
            chunk.write_bytes(b"")
    assert invoke(inspect, checkpoint).exit_code == 0


def test_bad_input_exits_with_1(tmp_path: Path):
    result = invoke(inspect, tmp_path / "nowhere")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
