"""`convert-paxml --dry-run`: the plan, before a byte is read."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from converters.commands.convert import convert
from tests.converters import stored
from tests.converters.invoking import BETAS, config, converted, invoke

Recording = Callable[[str], Path]
REPEATED = "LlamaRepeat_gda"


def test_reads_no_array(editable: Callable[[str], Path], tmp_path: Path):
    checkpoint = editable(REPEATED)
    whole = invoke(convert, checkpoint, tmp_path / "out", "--dry-run", *BETAS)
    for chunk in checkpoint.glob("*/state/*/0*"):
        if chunk.parent.name != "step":  # the only value that is read
            chunk.write_bytes(b"")
    result = converted(checkpoint, tmp_path / "out", "--dry-run", *BETAS)
    assert result.stdout == whole.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint"]


def test_prints_targets_sources_operations_and_totals(recording: Recording, tmp_path: Path):
    case = recording(REPEATED)
    text = converted(case / "checkpoint", tmp_path / "out", "--dry-run").stdout
    rows = [re.split(r"  +", line) for line in text.splitlines()]
    assert rows[0] == ["target", "source", "operation", "shape", "dtype"]
    source = "mdl_vars/params/lm/embedding_lookup/emb_var"
    assert [
        "params/embedder/embedding", source, "rename", "[96, 32]", "float32"
    ] in rows  # fmt: skip
    (moment,) = [row for row in rows if row[0] == "state/optimizer/adam/mu/final_norm/scale"]
    assert moment[1] == "opt_states/0/no_prefix/2/m/params/lm/final_ln/scale (+1)"
    assert moment[2] == "times 1 - beta1^count"
    assert text.splitlines()[-1] == (
        f"{case}/checkpoint/checkpoint_00000004: zarr 1.1, paxml 1.4 or newer, step 4, family "
        "transformer_lm; 39 leaves, 445.07 kB (148.35 kB of parameters)"
    )


def test_json(recording: Recording, tmp_path: Path):
    case = recording(REPEATED)
    out = tmp_path / "out"
    result = converted(case / "checkpoint", out, "--dry-run", "--json")
    plan = json.loads(result.stdout)
    converted(case / "checkpoint", out)
    manifest = stored.read_manifest(out)
    rows = ("target", "sources", "shape", "dtype")
    assert [[leaf[key] for key in rows] for leaf in plan["leaves"]] == [
        [leaf[key] for key in rows] for leaf in manifest["leaves"]
    ]
    assert plan["config"] == config(out)
    assert (plan["step"], plan["family"]) == (4, "transformer_lm")
    assert plan["bytes"] == 445068


def test_writes_nothing_and_minds_no_output(recording: Recording, tmp_path: Path):
    converted(recording(REPEATED) / "checkpoint", tmp_path, "--dry-run")
    assert list(tmp_path.iterdir()) == []
