"""Modules and names that have moved: importing them from the old place still works, with a warning.

`MODULES` has modules that are gone, `NAMES` names that have left a module that still exists, both
relative to the package; `converters` and `parity_tests` have tables of their own. The finder is
last in `sys.meta_path`, so it is only asked if no module was found, and it imports nothing before.
"""

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Old module -> modules that have its names now; a name is taken from the first that has it.
Rows = Mapping[str, tuple[str, ...]]

# fmt: off
MODULES: Rows = {
    "backbone.frequencies": ("backbone.positions.frequencies",),
    "backbone.latents": ("backbone.attention.latents",),
    "backbone.preset_families": ("backbone.presets.families", "backbone.presets.families.family",
                                 "backbone.presets.families.layers"),
    "backbone.preset_rotary": ("backbone.presets.rotary",),
    "backbone.presets.families.experts": ("backbone.presets.families.parts",),
    "backbone.pretrained_folder": ("backbone.presets.folder",),
    "backbone.relative_bias": ("backbone.positions.relative_bias",),
    "backbone.rotary": ("backbone.positions.rotary",),
    "backbone.routing": ("backbone.experts.routing",),
    "core.array_drafts": ("core.clustering.pickle_drafts",),
    "core.array_pickles": ("core.clustering.pickles",),
    "core.clustering_checks": ("core.clustering.checks",),
    "core.clustering_files": ("core.clustering.files",),
    "core.grouped": ("core.head.second.by_cluster", "core.head.second.visits"),
    "core.head.grouped": ("core.head.second.by_cluster", "core.head.second.visits"),
    "core.head.member_losses": ("core.head.second.losses",),
    "core.head.slots": ("core.head.measures.tiles",),
    "core.head_checks": ("core.head.checks",),
    "core.member_losses": ("core.head.second.losses",),
    "core.retrieval": ("core.head.retrieval", "core.head.top"),
    "core.softmax": ("core.head.softmax",),
    "data.vectors": ("core.vectors", "data.prepared.vectors", "prepared_format"),
    "free_memory": ("stored.free_memory",),
    "inference.cli": ("inference.commands.recommend", "inference.commands.requests",
                      "commands.options"),
    "inference.recommenders": ("inference.opening",),
    "load": ("stored.load", "stored.settings"),
    "save": ("stored.save",),
    "train.adafactor": ("train.optimizer.adafactor",),
    "train.adam": ("train.optimizer.adam",),
    "train.batch_checks": ("train.step.batch_checks",),
    "train.checkpoint": ("train.state.disk.checkpoint", "train.state.disk.faults",
                         "train.state.disk.leaves"),
    "train.cli": ("commands.program", "train.commands.train", "train.commands.evaluate",
                  "train.commands.export", "train.commands.flags"),
    "train.clipping": ("train.optimizer.clipping",),
    "train.commands.metrics": ("text",),
    "train.compiled_step": ("train.step.compiled",),
    "train.costs": ("train.logs.costs",),
    "train.curves": ("train.logs.curves",),
    "train.data_cursor": ("train.state.data_cursor",),
    "train.evaluation": ("train.step.evaluation",),
    "train.event_files": ("train.logs.event_files",),
    "train.file_config": ("train.run.file_config", "train.run.data_section"),
    "train.freeze": ("train.optimizer.freeze",),
    "train.initial_state": ("train.step.initial_state",),
    "train.learner": ("train.optimizer.learner", "settings.optimizer"),
    "train.logs.history": ("train.history.files",),
    "train.logs.mean": ("train.step.mean",),
    "train.logs.rows": ("train.history.rows",),
    "train.mean": ("train.step.mean",),
    "train.model_section": ("train.run.model_section",),
    "train.monitor": ("train.state.monitor",),
    "train.nonfinite": ("train.step.nonfinite",),
    "train.objective": ("train.step.objectives", "train.step.objectives.parts"),
    "train.optimizer.preview": ("train.logs.preview",),
    "train.optimizer_kinds": ("train.optimizer.kinds",),
    "train.pipeline": ("train.run.pipeline",),
    "train.placement": ("train.state.placement",),
    "train.preemption": ("train.loop.preemption",),
    "train.preview": ("train.logs.preview",),
    "train.processes": ("train.state.processes", "train.alarm"),
    "train.progress": ("train.logs.progress",),
    "train.rates": ("train.optimizer.schedules",),
    "train.recorder": ("train.logs.recorder",),
    "train.repeats": ("data.repeats",),
    "train.resume": ("train.state.resume", "train.state.data_cursor"),
    "train.run_config": ("train.run.config",),
    "train.run.schedule": ("train.run.optimizer",),
    "train.running": ("train.loop.running",),
    "train.schedules": ("train.optimizer.praxis_schedules",),
    "train.state.best": ("train.state.disk.best",),
    "train.state.checkpoint": ("train.state.disk.checkpoint",),
    "train.state.faults": ("train.state.disk.faults", "stored.echoes", "text"),
    "train.state.leaves": ("train.state.disk.leaves",),
    "train.state.lock": ("train.state.disk.lock",),
    "train.state.train_state": ("train.state.carried",),
    "train.strategies": ("train.optimizer.strategies",),
    "train.trace": ("train.logs.trace",),
    "train.train_state": ("train.state.carried",),
    "train.training_metrics": ("train.logs.training_metrics",),
    "train.updates": ("train.optimizer.updates",),
    "train.variables": ("train.optimizer.variables", "tree"),
    "train.window": ("train.step.window",),
}
NAMES: Rows = {
    "backbone.attention": ("backbone.attention.dot_product",),
    "backbone.layers": ("backbone.attention.softmax",),
    "config.parts": ("config.experts", "config.positions", "config.record"),
    "core.clustering": ("core.clustering.tables",),
    "core.embeddings": ("core.head.embeddings",),
    "core.head": ("core.head.computation",),
    "core.head.retrieval": ("core.head.top",),
    "core.hierarchical": ("core.head.hierarchical",),
    "data.texts": ("backbone.presets.tokenizer",),
    "train.logs": ("train.history",),
    "train.optimizer": ("train.optimizer.create", "train.optimizer.updates"),
    "train.run": ("train.run.calls",),
    "train.run.calls": ("train.run.exported",),
    "train.state": ("stored.optimizer_states", "train.alarm"),
    "train.state.description": ("data.vocabularies",),
    "train.state.processes": ("train.alarm",),
    "train.step": ("train.step.function", "train.step.returned"),
}
# 'old module:name' -> 'module:name' of its replacement.
RENAMED: Mapping[str, str] = {
    "inference.cli:main": "inference.commands.recommend:recommend",
    "inference.recommenders:load_recommender": "inference.opening:open_recommender",
}
# fmt: on

OWN = __name__.partition(".")[0]  # rows of other packages may point to modules of this one
_homes: dict[str, tuple[str, ...]] = {}  # the rows of all packages
_renamed: dict[str, str] = {}


def add_moved(package: str, modules: Rows, renamed: Mapping[str, str] | None = None) -> None:
    """Make the old modules of a package importable.

    Args:
        package: name of the package, the prefix of the names in the tables.
        modules: see `MODULES`.
        renamed: see `RENAMED`.
    """
    _homes.update(_whole(package, modules))
    for old, new in (renamed or {}).items():
        _renamed[f"{package}.{old}"] = f"{package}.{new}"
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def left_names(module: str) -> Callable[[str], Any]:
    """A `__getattr__` for a module (given by `__name__`) that finds names of `NAMES`."""
    package, _, rest = module.partition(".")
    found = _whole(package, {rest: NAMES.get(rest, ())})[module]

    def find(name: str) -> Any:
        if not name.startswith("_"):
            for home in found:
                value = _public(import_module(home), name)
                if value is not None:
                    _warn(f"{module}.{name}", f"{home}.{name}", 3)
                    return value
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find


class _Finder:
    """Finds the old modules in the tables."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        del path, target
        if name not in _homes:
            return None
        holds = any(other.startswith(f"{name}.") for other in _homes)
        return ModuleSpec(name, _Loader(), is_package=holds)  # pyright: ignore[reportArgumentType]


class _Loader:
    """Creates a module that forwards to its homes, the modules that have its names now."""

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        """See `importlib.abc.Loader`."""
        return _Moved(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """See `importlib.abc.Loader`; warns of the import."""
        homes = _homes[module.__name__]
        _warn(module.__name__, ", ".join(homes), 3)
        for home in homes:
            import_module(home)


class _Moved(ModuleType):
    """An old module: names are read and set in the modules that have them now."""

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return sorted({name for home in self._homes() for name in _names(home)})
        if not name.startswith("_"):
            if (renamed := _renamed.get(f"{self.__name__}:{name}")) is not None:
                module, _, new = renamed.partition(":")
                return getattr(import_module(module), new)
            if (home := self._home(name)) is not None:
                return _public(home, name)
        now = ", ".join(_homes[self.__name__])
        raise AttributeError(f"{self.__name__} is now {now}, and there is no {name!r} there")

    def __setattr__(self, name: str, value: Any) -> None:
        home = None if isinstance(value, _Moved) else self._home(name)
        home = home or vars(self).get("_emptied", {}).get(name)
        if home is None:
            super().__setattr__(name, value)
        else:
            setattr(home, name, value)

    def __delattr__(self, name: str) -> None:
        home = self._home(name)
        if home is None:
            super().__delattr__(name)
        else:
            delattr(home, name)
            vars(self).setdefault("_emptied", {})[name] = home  # `mock.patch` sets it again

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Call the function that has the same name as this module.

        Importing the module replaces a function of that name in its package.
        """
        return getattr(self, self.__name__.rpartition(".")[2])(*given, **named)

    def __dir__(self) -> list[str]:
        return self.__getattr__("__all__")

    def _home(self, name: str) -> ModuleType | None:
        """The home that has this name; names with an underscore belong to this module."""
        if name.startswith("_"):
            return None
        return next((home for home in self._homes() if _public(home, name) is not None), None)

    def _homes(self) -> list[ModuleType]:
        return [import_module(home) for home in _homes[self.__name__]]


def _public(module: ModuleType, name: str) -> Any:
    """A module's attribute, if the module itself or its `__all__` has it; else None."""
    if name in vars(module):
        return vars(module)[name]
    return getattr(module, name, None) if name in vars(module).get("__all__", ()) else None


def _names(module: ModuleType) -> list[str]:
    return [name for name in dir(module) if not name.startswith("_")]


def _whole(package: str, rows: Rows) -> dict[str, tuple[str, ...]]:
    """The rows with full module names."""
    return {
        f"{package}.{old}": tuple(
            home if home.startswith(f"{OWN}.") else f"{package}.{home}" for home in homes
        )
        for old, homes in rows.items()
    }


def _warn(old: str, new: str, level: int) -> None:
    """Warn of an old name; `level` does not count Python's own frames of an import."""
    warnings.warn(f"{old} is now {new}", FutureWarning, stacklevel=level)
