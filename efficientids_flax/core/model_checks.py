"""Checks that the fields of a model fit each other, made when it is built.

Letters: I items, K clusters, E item width.
"""

from collections.abc import Mapping
from typing import Any

from efficientids_flax.config.recommender import HeadConfig
from efficientids_flax.config.record import listed
from efficientids_flax.core.clustering import ClusteringInfo


def check_fields(module: Any, config: HeadConfig, names: tuple[str, ...]) -> None:
    """Check that fields which repeat the configuration are None or agree with it.

    Raises:
        ValueError: naming each field that differs, with both values.
    """
    problems = [
        f"{name}: found {getattr(module, name)!r}, the configuration says {wanted!r}"
        for name in names
        if getattr(module, name) is not None
        and (wanted := getattr(config, name)) is not None
        and getattr(module, name) != wanted
    ]
    raise_listed(type(module).__name__, problems)


def check_given(module: Any, names: tuple[str, ...]) -> None:
    """Check that the fields needed to make a configuration are given.

    Raises:
        ValueError: naming the missing ones.
    """
    problems = [f"{name}: missing" for name in names if getattr(module, name) is None]
    raise_listed(type(module).__name__, problems)


def check_pretrained(module: Any, params: Mapping[str, Any] | None) -> None:
    """Check that a frozen language model with a name gets parameters, or it would stay random.

    Args:
        module: any module; only `model_name` and `freeze_lm` are read.
        params: initial parameters that the user gave.

    Raises:
        ValueError: the parameters of the language model are missing.
    """
    name = getattr(module, "model_name", None)
    if name and getattr(module, "freeze_lm", False) and "pretrained_lm" not in (params or {}):
        raise ValueError(
            f"params: without those of {name} a frozen language model would stay random; model_name"
            " gives its configuration only. Give params={'pretrained_lm': ...} of"
            " load_pretrained_lm, or take load_recommender of converters.recommender"
        )


def check_clustering(config: HeadConfig, clustering: ClusteringInfo | None) -> None:
    """Check that the clustering has the items, clusters and vectors that the head needs.

    Raises:
        ValueError: naming everything that does not fit.
    """
    if config.full_softmax:
        return
    if clustering is None:
        raise ValueError(
            "clustering_info: missing; the hierarchical softmax needs to know where each item "
            "belongs (ClusteringInfo.from_file, .from_pickle), or set full_softmax"
        )
    problems = []
    for name in ("num_items", "num_clusters"):
        found, wanted = getattr(clustering, name), getattr(config, name)
        if wanted is not None and found != wanted:
            problems.append(f"{name}: the clustering has {found}, the model {wanted}")
    if not config.trainable_cluster_embeddings:
        if clustering.means is None:
            problems.append(
                "means: the clustering has none, and cluster embeddings are not trained "
                "(trainable_cluster_embeddings)"
            )
        elif clustering.means.shape[1] != config.item_embedding_dim:
            problems.append(
                f"means: the clustering's have width {clustering.means.shape[1]}, "
                f"item_embedding_dim is {config.item_embedding_dim}"
            )
    raise_listed("clustering_info", problems)


def raise_listed(name: str, problems: list[str]) -> None:
    """Raise ValueError with all problems, if there are any."""
    if problems:
        raise ValueError(listed(name, problems))
