"""A trained model with other clusters: what stays stays to the bit, and it goes on."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from converters import convert_paxml_checkpoint
from efficientids_flax.cluster import ClusterOptions, recluster
from efficientids_flax.config import ScheduleConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.core.simple_model import SimpleEfficientIDSModel
from efficientids_flax.inference import recommend
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.stored import ItemNames, load_converted, load_model, save_model, training_of
from efficientids_flax.stored.load import load_config
from efficientids_flax.train import trainer_from_converted
from efficientids_flax.tree import flatten, unflatten
from parity_tests.cases import OUTPUTS

pytest.importorskip("sklearn")

ITEMS, WIDTH = 23, 4
TABLE = "cluster_embedding/kernel"
OPTIONS = ClusterOptions("kmeans", clusters=6, seed=1)


def model_of(trained: bool) -> Any:
    """A recommender with 4 clusters; its cluster table is trained, or the clustering's means."""
    rng = np.random.default_rng(0)
    means = None if trained else rng.normal(size=(4, WIDTH)).astype(np.float32)
    clustering = ClusteringInfo.from_assignments(np.arange(ITEMS) % 4, means, catalogue="cafe")
    made = SimpleEfficientIDSModel(
        num_items=ITEMS, item_embedding_dim=WIDTH, model_dims=8, num_layers=1, num_heads=2,
        clustering_info=clustering,
    )  # fmt: skip
    if trained:
        return made
    config = dataclasses.replace(
        made.config, trainable_cluster_embeddings=False, num_clusters=None,
        input_adapter_everywhere=False, output_adapter=made.config.input_adapter,
    )  # fmt: skip
    return EfficientIDSModel(config=config, clustering_info=clustering)


@pytest.fixture(scope="module", params=[True, False], ids=["trained table", "fixed means"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, folder = model_of(request.param), tmp_path_factory.mktemp("model") / "export"
    rng = np.random.default_rng(1)
    shapes = parameter_shapes(model.config)
    params = unflatten({
        name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()
    })  # fmt: skip
    names = ItemNames(tuple(f"i{n}" for n in range(ITEMS)), (None,) * ITEMS)
    save_model(folder, model, params, items=names, training={"step": 7, "sequence_length": 5})
    return folder


def test_all_but_the_cluster_table_stays_to_the_bit(exported: Path, tmp_path: Path):
    made = recluster(exported, tmp_path / "new", OPTIONS)
    before, after = load_model(exported), load_model(tmp_path / "new")
    old, new = flatten(before.params), flatten(after.params)
    assert old.keys() == new.keys()
    for name in old.keys() - {TABLE}:
        assert np.asarray(old[name]).tobytes() == np.asarray(new[name]).tobytes(), name
    clustering: Any = after.model.clustering_info  # pyright: ignore[reportAttributeAccessIssue]
    assert clustering.num_clusters == 6
    assert clustering.catalogue == "cafe"
    assert clustering.digest() == made.clustering.digest()
    items = np.asarray(new["item_embedding/kernel"]).T
    means = [items[clustering.cluster_of == k].mean(0) for k in range(6)]
    np.testing.assert_allclose(clustering.means, means, atol=1e-6)
    if TABLE in new:
        np.testing.assert_array_equal(new[TABLE], clustering.means.T)
    told = training_of(tmp_path / "new")
    assert (told["step"], told["sequence_length"]) == (7, 5)
    assert (tmp_path / "new" / "items.jsonl").read_text() == (exported / "items.jsonl").read_text()
    assert "no optimizer state is stored here; all of it begins anew" in made.summary.notes


def test_its_loss_is_finite_or_it_recommends(exported: Path, tmp_path: Path):
    """A loss of the one that has no table to train, the best items of the other."""
    recluster(exported, tmp_path / "new", OPTIONS)
    model, params, _ = load_model(tmp_path / "new")
    if "cluster_embedding" in params:
        found = recommend(model, params, [[1, 2]], 5)  # pyright: ignore[reportArgumentType]
        assert len(set(np.asarray(found.ids[0]).tolist())) == 5
        return
    ids, ones = np.array([[0, 5, 22]], np.int32), np.ones((1, 3), np.float32)
    batch = {"ids": ids, "labels": ids, "weights": ones, "input_item_weights": ones,
             "label_item_weights": ones}  # fmt: skip

    @jax.jit
    def loss(params: Any) -> Any:
        return model.apply({"params": params}, batch, method="loss").loss  # pyright: ignore[reportAttributeAccessIssue]

    assert np.isfinite(loss(params))


def test_what_is_there_and_what_has_no_clusters_are_told(exported: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(FileExistsError, match="is there already"):
        recluster(exported, tmp_path / "mine", OPTIONS)
    with pytest.raises(FileNotFoundError):
        recluster(tmp_path / "absent", tmp_path / "new", OPTIONS)
    with pytest.raises(ValueError, match="24"):
        recluster(exported, tmp_path / "new", dataclasses.replace(OPTIONS, clusters=24))
    assert not (tmp_path / "new").exists()


def test_a_converted_run_goes_on_with_the_state_of_all_other_parameters(recording, tmp_path: Path):
    name = "d_correction_frozen_lm"
    out, new = tmp_path / "out", tmp_path / "new"
    convert_paxml_checkpoint(recording(name) / "checkpoint", out, overrides={"beta1": 0.9})
    ClusteringInfo.from_pickle(recording(name) / "clustering.pkl").save(out / "clustering.npz")
    made = recluster(out, new, ClusterOptions("balanced-kmeans", clusters=9))
    assert made.summary.notes[-1].startswith("the optimizer's state is kept, but for the cluster")
    before, after = load_converted(out), load_converted(new)
    assert after.optimizer_state.step == before.optimizer_state.step
    old, now = (found.optimizer_state.optimizer["sharded_adafactor"] for found in (before, after))
    assert type(old) is type(now)
    was, leaves = (flatten(state._asdict()) for state in (old, now))
    assert was.keys() == leaves.keys()
    shape = after.params["cluster_embedding"]["kernel"].shape
    cut = {"m": shape, "m_scale": shape[1:], "vr": shape[:1], "vc": shape[1:]}
    mine = [leaf for leaf in leaves if TABLE in leaf]
    assert mine
    for leaf, value in leaves.items():
        value = np.asarray(value)  # noqa: PLW2901
        if leaf not in mine:
            assert value.tobytes() == np.asarray(was[leaf]).tobytes(), leaf
        elif value.shape != (1,):
            assert value.shape == cut[leaf.split("/")[0]]
            assert not value.any()
    assert load_config(new).optimizer == load_config(out).optimizer

    with np.load(OUTPUTS / name / "arrays.npz") as recorded:
        batch = {field.removeprefix("inputs/"): recorded[field] for field in recorded.files
                 if field.startswith("inputs/")}  # fmt: skip
    optimizer: Any = dataclasses.replace(
        load_config(new).optimizer,  # pyright: ignore[reportArgumentType]
        learning_rate=1e-3, schedule=ScheduleConfig("constant"), decay_method="adam",
        decay_adam=0.999, clip_threshold=1.0,
        bprop_variable_exclusion=("params/lm/(transformer|final_ln|softmax/logits_ffn)/.*",),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not all of its settings are known", UserWarning)
        trainer, state = trainer_from_converted(
            new, batch, optimizer_config=optimizer, progress="none", log_every=1, plot=False
        )
    step = int(state.step)
    state = trainer.train(state, [batch], num_steps=step + 1)
    assert int(state.step) == step + 1
    assert np.isfinite(trainer.history[-1]["loss"])
    moved: Any = state.params
    assert (np.asarray(moved["cluster_embedding"]["kernel"]) != made.clustering.means.T).any()  # pyright: ignore[reportOptionalMemberAccess]
