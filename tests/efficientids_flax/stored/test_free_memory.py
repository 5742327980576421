"""What is free, and what is said where that is too little."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from efficientids_flax.stored import free_memory
from efficientids_flax.stored.free_memory import available_memory, check_parameters

LEAVES = {
    "a": jax.ShapeDtypeStruct((1000, 100), jnp.float32),
    "b": jax.ShapeDtypeStruct((8,), jnp.int32),
}


def test_too_little_memory_names_both_figures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(free_memory, "available_memory", lambda device=None: 300_000)
    nowhere = dict.fromkeys(LEAVES)
    message = r"OUT: the parameters take 400\.03 kB on this host, and 300\.00 kB are free"
    with pytest.raises(MemoryError, match=message):
        check_parameters("OUT", LEAVES, nowhere)
    with pytest.warns(ResourceWarning, match=message):
        check_parameters("OUT", LEAVES, nowhere, refuse=False)
    monkeypatch.setattr(free_memory, "available_memory", lambda device=None: 400_032)
    check_parameters("OUT", LEAVES, nowhere)
    with pytest.raises(MemoryError, match=r"take 800\.03 kB"):
        check_parameters("OUT", LEAVES, nowhere, "float64")  # integers stay as they are


def test_each_device_is_asked_for_its_part(monkeypatch: pytest.MonkeyPatch):
    """Two devices with memory of their own: a split leaf takes half on each, a copied one all."""
    devices = [SimpleNamespace(platform="gpu", name=name) for name in ("first", "second")]
    split = SimpleNamespace(
        addressable_devices=set(map(Hashed, devices)),
        shard_shape=lambda shape: (shape[0] // 2, *shape[1:]),
    )
    copied = SimpleNamespace(addressable_devices=split.addressable_devices, shard_shape=lambda s: s)
    free = {"first": 10**6, "second": 200_031}
    monkeypatch.setattr(free_memory, "available_memory", lambda device: free[device.name])
    with pytest.raises(MemoryError, match=r"take 200\.03 kB on second, and 200\.03 kB are free"):
        check_parameters("OUT", LEAVES, {"a": split, "b": copied})
    free["second"] += 1
    check_parameters("OUT", LEAVES, {"a": split, "b": copied})


class Hashed:
    """A stand-in for a device."""

    def __init__(self, about: SimpleNamespace) -> None:
        self.platform, self.name = about.platform, about.name

    def __str__(self) -> str:
        return self.name


def test_devices_of_the_cpu_share_the_host(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        free_memory, "available_memory", lambda device=None: 0 if device is None else 1e9
    )
    sharding = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    with pytest.raises(MemoryError, match="on this host"):
        check_parameters("OUT", LEAVES, dict.fromkeys(LEAVES, sharding))


def test_nobody_knows_how_much_is_free(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(free_memory, "available_memory", lambda device=None: None)
    check_parameters("OUT", LEAVES, dict.fromkeys(LEAVES))


def test_what_is_free_on_a_device():
    def device(stats: dict[str, int] | None) -> Any:
        return SimpleNamespace(memory_stats=lambda: stats)

    assert available_memory(device({"bytes_limit": 100, "bytes_in_use": 30})) == 70
    assert available_memory(device(None)) is None


def test_what_is_free_on_the_host(tmp_path: Path):
    free = available_memory()
    if Path("/proc/meminfo").exists():
        assert free is not None
        assert free > 0
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4 kB\n")
    assert free_memory._meminfo(tmp_path / "meminfo") == 4096
    assert free_memory._meminfo(tmp_path / "none") is None


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_left_of_a_containers_limit(version: int, tmp_path: Path):
    names = ("memory.max", "memory.current", "memory.stat")
    prefix = ""
    if version == 1:
        (tmp_path / "memory").mkdir()
        names = (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
        )
        prefix = "total_"
    limit, used, stat = (tmp_path / name for name in names)
    limit.write_text("1000\n")
    used.write_text("700\n")
    stat.write_text(f"anon 5\n{prefix}inactive_file 100\n")
    assert free_memory._container(tmp_path) == 400
    limit.write_text("max\n" if version == 2 else "9223372036854771712\n")
    assert free_memory._container(tmp_path) is None
