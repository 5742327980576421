"""`--also`: merges checkpoints as PAXml's init-from-checkpoint rules do."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.converters import stored
from tests.converters.invoking import config, converted, refused

Recording = Callable[[str], Path]
RECOMMENDER = "b_everywhere"
ITEMS = "params/lm/softmax/logits_ffn_item/.*"
CLUSTERS = "params/lm/softmax/logits_ffn_cluster/linear/.*"


@pytest.mark.parametrize("kind", ["full", "min"])
def test_item_and_cluster_tables(kind: str, recording: Recording, tmp_path: Path):
    case = recording("n_init_rules")
    also = ["--also", f"{case / f'item_{kind}'}:{ITEMS}"]
    also += ["--also", f"{case / f'cluster_{kind}'}:{CLUSTERS}"]
    result = converted(case / "lm", tmp_path / "out", *also)
    assert "training starts anew" in result.stdout
    output = stored.read_output(tmp_path / "out")
    taken = {
        "item_embedding/kernel": (f"item_{kind}", "logits_ffn_item"),
        "cluster_embedding/kernel": (f"cluster_{kind}", "logits_ffn_cluster"),
    }
    own = {"mdl_vars/params/lm/final_ln/scale": {"shape": [32]}}
    lm = stored.read_paxml(stored.step_of(case / "lm"), own)
    scale = output["params/pretrained_lm/final_norm/scale"]
    assert scale.tobytes() == next(iter(lm.values())).tobytes()
    for target, (folder, name) in taken.items():
        path = f"mdl_vars/params/lm/softmax/{name}/linear/w"
        described = {path: {"shape": list(output[f"params/{target}"].shape)}}
        source = stored.read_paxml(stored.step_of(case / folder), described)
        assert output[f"params/{target}"].tobytes() == source[path].tobytes()
    assert not [path for path in output if path.startswith("state/optimizer")]
    assert config(tmp_path / "out")["family"] == "efficientids"
    assert output["state/step"] == 104000


def test_rules_from_a_file(recording: Recording, tmp_path: Path):
    case = recording("n_init_rules")
    rules = tmp_path / "rules.toml"
    rules.write_text(f"load = [['({ITEMS})$', '{{}}']]\n")
    converted(case / "lm", tmp_path / "a", "--also", f"{case / 'item_min'}:{rules}")
    converted(case / "lm", tmp_path / "b", "--also", f"{case / 'item_min'}:{ITEMS}")
    assert stored.digests(tmp_path / "a") == stored.digests(tmp_path / "b")


def test_a_lm_without_tables_becomes_a_recommender(recording: Recording, tmp_path: Path):
    """The plain LM has the same shapes; it is made by removing the items."""
    case = recording("n_init_rules")
    lm = Path(shutil.copytree(case / "lm", tmp_path / "lm"))
    for array in [
        *lm.glob("*/state/*logits_ffn_item*"),
        *lm.glob("*/state/*logits_ffn_cluster*"),
    ]:
        shutil.rmtree(array)
    shutil.rmtree(next(lm.glob("*/metadata")))
    for array in lm.glob("*/state/opt_states*"):
        shutil.rmtree(array)
    also = ["--also", f"{case / 'item_min'}:{ITEMS}"]
    converted(lm, tmp_path / "out", *also)
    assert "params/item_embedding/kernel" in stored.digests(tmp_path / "out")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("params/lm/nothing/.*", "no parameter matches the rules"),
        ("(", "not a list of patterns"),
        ("missing.toml", "missing.toml: cannot be read"),
    ],
)
def test_rules_that_do_not_fit(rules: str, said: str, recording: Recording, tmp_path: Path):
    case = recording("n_init_rules")
    also = f"{case / 'item_min'}:{rules}"
    assert said in refused(case / "lm", tmp_path / "out", "--also", also)
    assert list(tmp_path.iterdir()) == []


def test_no_rules_at_all(recording: Recording, tmp_path: Path):
    case = recording("n_init_rules")
    said = refused(case / "lm", tmp_path / "out", "--also", str(case / "item_min"))
    assert "write CKPT:RULES" in said


def test_tables_of_another_size(recording: Recording, tmp_path: Path):
    case, other = recording("n_init_rules"), recording(RECOMMENDER)
    also = f"{other / 'checkpoint'}:{ITEMS}"
    said = refused(case / "lm", tmp_path / "out", "--also", also)
    assert "gives [16, 200], the first checkpoint has [16, 61]" in said
