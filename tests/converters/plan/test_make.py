"""Options for the content and the format of the output."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.converters import expected, stored, synthetic
from tests.converters.invoking import BETAS, config, converted, refused

Recording = Callable[[str], Path]
LLAMA, REPEATED, RECOMMENDER = "Llama_v11orbaxnames", "LlamaRepeat_gda", "b_everywhere"


def test_no_optimizer(recording: Recording, tmp_path: Path):
    case = recording(LLAMA)  # its betas are known nowhere, which now does not matter
    converted(case / "checkpoint", tmp_path / "out", "--no-optimizer")
    output = stored.read_output(tmp_path / "out")
    assert [path for path in output if path.startswith("state/")] == ["state/step"]
    ignored = stored.read_manifest(tmp_path / "out")["ignored"]
    described = stored.read_manifest(case)["leaves"]
    states = [path for path in described if path.startswith("opt_states")]
    assert {entry["source"] for entry in ignored} == set(states)


def test_raw_optimizer(recording: Recording, tmp_path: Path):
    case = recording(LLAMA)
    converted(case / "checkpoint", tmp_path / "out", "--raw-optimizer")
    described = stored.read_manifest(case)["leaves"]
    source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
    raw = {
        f"state/opt_states_raw/{path.removeprefix('opt_states/')}": values
        for path, values in source.items()
        if path.startswith("opt_states/")
    }
    wanted = expected.converted(source)
    wanted = {p: v for p, v in wanted.items() if not p.startswith("state/optimizer")} | raw
    assert expected.difference(stored.read_output(tmp_path / "out"), wanted) == []


@pytest.mark.parametrize("scan", [True, False])
def test_scan_layers(scan: bool, recording: Recording, tmp_path: Path):
    case = recording(REPEATED if not scan else LLAMA)
    flag = "--scan-layers" if scan else "--no-scan-layers"
    converted(case / "checkpoint", tmp_path / "out", flag, *BETAS)
    described = stored.read_manifest(case)["leaves"]
    source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
    wanted = expected.converted(source, (0.9, 0.99), scan)
    assert expected.difference(stored.read_output(tmp_path / "out"), wanted) == []
    assert config(tmp_path / "out")["model"]["scan_layers"] is scan


def test_scan_layers_of_layers_that_differ(recording: Recording, tmp_path: Path):
    case = recording("MoeGpt_gda")
    said = refused(case / "checkpoint", tmp_path / "out", "--scan-layers")
    assert "layers/moe/router/kernel" in said


def test_dtype_casts_parameters_alone(recording: Recording, tmp_path: Path):
    import ml_dtypes

    case = recording(LLAMA)
    converted(case / "checkpoint", tmp_path / "out", "--dtype", "bfloat16", *BETAS)
    described = stored.read_manifest(case)["leaves"]
    source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
    wanted = {
        path: values.astype(ml_dtypes.bfloat16) if path.startswith("params/") else values
        for path, values in expected.converted(source, (0.9, 0.99)).items()
    }
    assert expected.difference(stored.read_output(tmp_path / "out"), wanted) == []
    leaves = stored.read_manifest(tmp_path / "out")["leaves"]
    (leaf,) = [leaf for leaf in leaves if leaf["target"] == "params/final_norm/scale"]
    assert (leaf["operation"], leaf["dtype"]) == ("cast bfloat16", "bfloat16")


@pytest.mark.parametrize("name", ["float12", "int8", "float8_e4m3fn"])
def test_dtype_that_will_not_do(name: str, recording: Recording, tmp_path: Path):
    case = recording(RECOMMENDER)
    said = refused(case / "checkpoint", tmp_path / "out", "--dtype", name)
    assert f"--dtype {name}: parameters can be cast to float32, bfloat16" in said


def test_dequantize(recording: Recording, tmp_path: Path):
    case = recording("QuantInt8Linear_gda")
    converted(case / "checkpoint", tmp_path / "out", "--dequantize")
    described = stored.read_manifest(case)["leaves"]
    source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
    weight = source["mdl_vars/params/w"].astype(np.float64)
    scale = source["mdl_vars/params/w_quantized_scale"].astype(np.float64)
    output = stored.read_output(tmp_path / "out")
    assert set(output) == {"params/w", "state/step"}
    assert output["params/w"].dtype == np.float32
    np.testing.assert_array_equal(output["params/w"], (weight * scale).astype(np.float32))


def test_family_generic_keeps_the_names(recording: Recording, tmp_path: Path):
    case = recording(REPEATED)
    converted(case / "checkpoint", tmp_path / "out", "--family", "generic", "--no-optimizer")
    described = stored.read_manifest(case)["leaves"]
    wanted = {
        path.replace("mdl_vars/", "", 1): leaf["sha256"]
        for path, leaf in described.items()
        if path.startswith("mdl_vars/")
    } | {"state/step": described["step"]["sha256"]}
    assert stored.digests(tmp_path / "out") == wanted
    found = config(tmp_path / "out")
    assert "model" not in found["origins"]
    assert found | {"optimizer": None, "origins": {}} == {
        "schema_version": 1, "family": "generic", "model": None, "optimizer": None, "origins": {}
    }  # fmt: skip


def test_family_that_does_not_fit(recording: Recording, tmp_path: Path):
    case = recording("BatchNormNonTrainable_ocdbt")
    said = refused(case / "checkpoint", tmp_path / "out", "--family", "transformer_lm")
    assert "no rule takes this leaf" in said


def test_rules(recording: Recording, tmp_path: Path):
    case = recording("QuantInt8Linear_gda")
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\ntarget = "dense/kernel"\nsource = "w"\nop = "transpose 1 0"\n'
        '[[ignore]]\nsource = "w_quantized_scale"\nreason = "the test does without"\n'
    )
    converted(case / "checkpoint", tmp_path / "out", "--rules", rules)
    described = stored.read_manifest(case)["leaves"]
    source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
    output = stored.read_output(tmp_path / "out")
    assert output["params/dense/kernel"].tolist() == source["mdl_vars/params/w"].T.tolist()
    manifest = stored.read_manifest(tmp_path / "out")
    assert manifest["ignored"] == [
        {"source": "mdl_vars/params/w_quantized_scale", "reason": "the test does without"}
    ]
    assert manifest["rules"] == ["dense/kernel <- w (transpose 1 0)"]


def test_rules_that_leave_something_out_list_it(recording: Recording, tmp_path: Path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("rule:\n- {target: kernel, source: w}\n")
    case = recording("QuantInt8Linear_gda")
    said = refused(case / "checkpoint", tmp_path / "out", "--rules", rules)
    assert "w_quantized_scale: no rule takes this leaf" in said


@pytest.mark.parametrize("text", ["{", "rule: 3", "[[rule]]\ntarget = 'a'"])
def test_rules_that_are_none(text: str, recording: Recording, tmp_path: Path):
    rules = tmp_path / "rules.toml"
    rules.write_text(text)
    case = recording("QuantInt8Linear_gda")
    said = refused(case / "checkpoint", tmp_path / "out", "--rules", rules)
    assert f"{rules}: " in said


def test_set_and_config(recording: Recording, tmp_path: Path):
    case = recording(LLAMA)
    file = tmp_path / "values.toml"
    file.write_text('activation = "relu"\nnorm_epsilon = 0.5\n[optimizer]\nbeta1 = 0.8\n')
    values = ["--config", file, "--set", "norm_epsilon=.25", "--set", "optimizer.beta2=0.99"]
    converted(case / "checkpoint", tmp_path / "out", *values)
    written = config(tmp_path / "out")
    assert written["model"]["activation"] == "relu"
    assert written["model"]["norm_epsilon"] == 0.25  # --set wins
    assert (written["optimizer"]["beta1"], written["optimizer"]["beta2"]) == (0.8, 0.99)
    described = stored.read_manifest(case)["leaves"]
    source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
    wanted = expected.converted(source, (0.8, 0.99))
    assert expected.difference(stored.read_output(tmp_path / "out"), wanted) == []


def test_set_of_nothing_known(recording: Recording, tmp_path: Path):
    case = recording(RECOMMENDER)
    said = refused(case / "checkpoint", tmp_path / "out", "--set", "activatoin=relu")
    assert "activatoin" in said


def test_job_files(recording: Recording, tmp_path: Path):
    case = recording(REPEATED)
    checkpoint = Path(shutil.copytree(case / "checkpoint", tmp_path / "alone" / "checkpoint"))
    assert "beta1 and beta2 are not known" in converted(checkpoint, tmp_path / "alone.out").stdout
    converted(checkpoint, tmp_path / "out", "--job-files", case / "job_files")
    converted(case / "checkpoint", tmp_path / "beside")
    assert stored.digests(tmp_path / "out") == stored.digests(tmp_path / "beside")
    assert config(tmp_path / "out") == config(tmp_path / "beside")


def test_manifest_says_where_each_value_comes_from(recording: Recording, tmp_path: Path):
    converted(recording(REPEATED) / "checkpoint", tmp_path / "out", "--set", "norm_epsilon=1e-3")
    written = config(tmp_path / "out")["model"]
    provenance = stored.read_manifest(tmp_path / "out")["config"]["model"]
    assert {name.partition(".")[0] for name in provenance} >= set(written)
    assert len({str(cause) for cause in provenance.values()}) > 2


@pytest.mark.parametrize("to", ["orbax", "safetensors"])
@pytest.mark.parametrize("verify", ["full", "sample", "none"])
def test_formats_and_verification(to: str, verify: str, recording: Recording, tmp_path: Path):
    case = recording(REPEATED)
    options = ("--to", to, "--verify", verify, "--memory", "1MiB", "--workers", "3")
    converted(case / "checkpoint", tmp_path / "out", *options)
    described = stored.read_manifest(case)["leaves"]
    source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
    wanted = expected.converted(source, (0.9, 0.99))
    if to == "orbax":
        output = stored.read_output(tmp_path / "out")
    else:
        from safetensors.numpy import load_file

        output = {
            f"{item}/{name}": values
            for item in ("params", "state")
            for name, values in load_file(tmp_path / "out" / f"{item}.safetensors").items()
        }
    assert expected.difference(output, wanted) == []
    leaves = stored.read_manifest(tmp_path / "out")["leaves"]
    checked = [leaf for leaf in leaves if leaf["verified"] == "read back"]
    assert len(checked) == {"full": len(leaves), "none": 0}.get(verify, len(checked))
    assert verify != "sample" or 0 < len(checked) < len(leaves)
    for leaf in leaves:
        if leaf["sha256"] is not None:
            assert leaf["sha256"] == stored.leaf_digest(output[leaf["target"]])
        elif verify != "full" and "moved undecoded" in leaf["operation"]:
            assert (leaf["verified"], leaf["nonfinite"]) == ("not checked", "not checked")
            assert len(leaf["stored_sha256"]) == 64
        assert verify != "full" or leaf["sha256"] is not None


def test_what_is_no_model_of_its_family_keeps_its_names(tmp_path: Path):
    """Its norm before attention has no weights: no decoder of ours, but everything is kept."""
    shapes = {
        "lm/softmax/logits_ffn/linear/w": (8, 16), "lm/final_ln/scale": (8,),
        "lm/transformer/x_layers_0/layer_norm/scale": (8,),
        "lm/transformer/x_layers_0/ff_layer/ffn_layer1/linear/w": (8, 4),
        "lm/transformer/x_layers_0/ff_layer/ffn_layer2/linear/w": (4, 8),
    }  # fmt: skip
    params = {path: np.ones(shape, np.float32) for path, shape in shapes.items()}
    job = synthetic.write_job(tmp_path / "job", params)
    said = converted(job, tmp_path / "out").stdout
    assert "this looks like family transformer_lm, but it is not one that is known here" in said
    assert "lm/transformer/x_layers_0/self_attention/key/w: missing" in said
    assert config(tmp_path / "out")["family"] == "generic"
    assert set(stored.read_output(tmp_path / "out")) >= {f"params/{path}" for path in params}
    said = refused(job, tmp_path / "other", "--family", "transformer_lm")
    assert "the configuration cannot be inferred" in said


def test_a_learner_s_dump_that_does_not_fit_is_a_note(recording: Recording, tmp_path: Path):
    """The weights are right, whatever the dump says about training."""
    case = recording(REPEATED)
    shutil.copytree(case / "job_files", tmp_path / "job_files")
    dump = tmp_path / "job_files" / "model_params.txt"
    text = dump.read_text()
    assert "type/praxis.optimizers/Adam" in text
    dump.write_text(text.replace("type/praxis.optimizers/Adam", "type/praxis.optimizers/Sgd"))
    files = ("--job-files", str(tmp_path / "job_files"))
    said = converted(case / "checkpoint", tmp_path / "out", *files).stdout
    assert "config.json has no optimizer" in said
    assert "the tree says 'adam', the dump says 'sgd'" in said
    assert config(tmp_path / "out")["optimizer"] is None
    assert config(tmp_path / "out")["model"] is not None
    said = refused(case / "checkpoint", tmp_path / "other", *files, "--set", "beta1=0.9")
    assert "the dump says 'sgd'" in said
