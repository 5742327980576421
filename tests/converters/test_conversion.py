"""Every recorded checkpoint converts, bit for bit, with its optimizer; compared with `expected`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from converters import Report, convert, convert_paxml_checkpoint
from tests.converters import expected, stored
from tests.paths import RECORDINGS

BETAS = {"k_adam": (0.9, 0.95)}  # what the recorded jobs trained with
PAXML_BETAS = (0.9, 0.99)


def cases(family: str) -> list[str]:
    return sorted({p.name.removesuffix(".tar.xz") for p in (RECORDINGS / family).iterdir()})


def places(case: Path) -> list[Path]:
    """The folders of a case, each of which holds one checkpoint."""
    found = [p for p in sorted(case.iterdir()) if p.is_dir()]
    return [p for p in found if p.name.startswith("checkpoint")]


def beta_overrides(name: str) -> dict[str, float]:
    beta1, beta2 = BETAS.get(name, PAXML_BETAS)
    return {"beta1": beta1, "beta2": beta2}


CASES = [*cases("paxml"), *(name for name in cases("efficientids") if name != "n_init_rules")]


class Conversions:
    """The recordings, each converted once for all tests: name -> reports, by checkpoint."""

    def __init__(self, recording: Callable[[str], Path], root: Path) -> None:
        self._recording, self._root = recording, root
        self._done: dict[str, dict[Path, Report]] = {}

    def __call__(self, name: str) -> dict[Path, Report]:
        if name not in self._done:
            case = self._recording(name)
            overrides = {} if (case / "job_files").exists() else beta_overrides(name)
            self._done[name] = {
                place: convert(place, self._root / name / place.name, overrides=overrides)
                for place in places(case)
            }
        return self._done[name]


@pytest.fixture(scope="module")
def conversions(
    recording: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Conversions:
    return Conversions(recording, tmp_path_factory.mktemp("converted"))


@pytest.mark.parametrize("name", CASES)
def test_converts_every_recording_bit_for_bit(
    name: str, recording: Callable[[str], Path], conversions: Conversions
):
    described = stored.read_manifest(recording(name))["leaves"]
    for place, report in conversions(name).items():
        source = stored.read_paxml(stored.step_of(place), described)
        for path, values in source.items():  # the independent reader is right about the source
            restored = stored.cast_like(values, described[path]["dtype"])
            assert stored.leaf_digest(restored) == described[path]["sha256"], path
        wanted = expected.converted(source, BETAS.get(name, PAXML_BETAS))
        assert report.output is not None
        assert expected.difference(stored.read_output(Path(report.output)), wanted) == []


@pytest.mark.parametrize("name", CASES)
def test_manifest_accounts_for_each_recorded_leaf(
    name: str, recording: Callable[[str], Path], conversions: Conversions
):
    """Each leaf is used or listed as ignored; unchanged leaves keep their recorded digest."""
    recorded = stored.read_manifest(recording(name))["leaves"]
    for report in conversions(name).values():
        assert report.output is not None
        leaves = stored.read_manifest(Path(report.output))["leaves"]
        sources = {path for leaf in leaves for path in leaf["sources"]}
        left_out = {path for path, _ in report.plan.ignored}
        assert sources | left_out == set(recorded)
        assert not sources & left_out
        same = [leaf for leaf in leaves if leaf["operation"].startswith("rename")]
        assert same
        for leaf in same:
            (source,) = leaf["sources"]
            about = recorded[source]
            if leaf["dtype"] == about["dtype"]:  # a bf16 model may lie there as float32
                found = (leaf["shape"], leaf["sha256"])
                assert found == (about["shape"], about["sha256"]), leaf["target"]


@pytest.mark.parametrize("scan_layers", [True, False])
@pytest.mark.parametrize(
    "name",
    ["Llama_v11orbaxnames", "LlamaRepeat_gda", "Pipe2_gda", "LlamaAdafactor_flax",
     "LlamaRepeatEma_v00flax_file", "b_everywhere", "i4_sep_emb_trainable_pos"],
)  # fmt: skip
def test_stacks_and_unstacks_layers_with_their_moments(
    name: str, scan_layers: bool, recording: Callable[[str], Path], tmp_path: Path
):
    case = recording(name)
    described = stored.read_manifest(case)["leaves"]
    convert(
        case / "checkpoint",
        tmp_path / "out",
        scan_layers=scan_layers,
        overrides=beta_overrides(name),
    )
    source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
    wanted = expected.converted(source, PAXML_BETAS, scan_layers)
    assert expected.difference(stored.read_output(tmp_path / "out"), wanted) == []


def test_every_layout_of_one_state_gives_the_same_digests(conversions: Conversions):
    outputs = [report.output for report in conversions("g_stacked_layers").values()]
    assert len(outputs) > 1
    first, *rest = [stored.digests(Path(str(output))) for output in outputs]
    assert all(other == first for other in rest)


def test_seed_name_converts_and_loads(recording: Callable[[str], Path], tmp_path: Path):
    from converters import load_converted

    case = recording("b_everywhere")
    report = convert_paxml_checkpoint(case / "checkpoint", tmp_path / "out")
    params, state, config = load_converted(tmp_path / "out")
    assert report.output == str(tmp_path / "out")
    assert config.family == "efficientids"
    assert state.step == 3
    assert set(state.optimizer) == {"sharded_adafactor", "schedule"}
    assert params["item_embedding"]["kernel"].shape == (16, 200)
