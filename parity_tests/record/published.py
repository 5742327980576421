"""The dumps of the experiments that PAXml ships: `python -m parity_tests.record published OUT`.

Writes OUT/NAME.txt, what a job of each class would write as its `model_params.txt`, and
OUT.tar.xz. No job runs: the class makes its task, and Praxis writes it out.
"""

from __future__ import annotations

import importlib
import inspect
import pathlib
import sys

from paxml import base_experiment
from praxis import base_hyperparams

from parity_tests.record.archive import pack

PLACE = "paxml.tasks.lm.params"
MODULES = ("c4", "c4_multislice", "lm_cloud", "optimal_scaling", "nvidia", "bert")
NO_LANGUAGE_MODELS = {"LargeMlp", "SmallMlp"}


def main(arguments: list[str]) -> None:
    """Write the dumps of all classes that can be made."""
    place = pathlib.Path(arguments[0])
    place.mkdir(parents=True, exist_ok=True)
    for name, cls in classes():
        try:
            task = cls().task()
        except (AssertionError, NotImplementedError, TypeError) as error:
            # A base class: sizes, stages or data are left to those that inherit from it.
            print(f"{name}: no experiment of its own: {error}", file=sys.stderr)
            continue
        (place / f"{name}.txt").write_text(base_hyperparams.nested_struct_to_text(task))
    pack(place)


def classes() -> list[tuple[str, type[base_experiment.BaseExperiment]]]:
    """The experiments that the modules define themselves, by name."""
    found = []
    for module in (importlib.import_module(f"{PLACE}.{name}") for name in MODULES):
        for name, cls in inspect.getmembers(module, inspect.isclass):
            own = cls.__module__ == module.__name__ and name not in NO_LANGUAGE_MODELS
            if own and issubclass(cls, base_experiment.BaseExperiment):
                found.append((name, cls))
    return found
