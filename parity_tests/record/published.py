"""Writes dumps of the experiments that PAXml ships: `python -m parity_tests.record published OUT`.

For each class it writes OUT/NAME.txt, which is what a job would write as `model_params.txt`, and
then OUT.tar.xz. No job is run: the class makes its task, and Praxis writes it as text.
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
    """Write the dumps of all classes that can make a task."""
    place = pathlib.Path(arguments[0])
    place.mkdir(parents=True, exist_ok=True)
    for name, cls in classes():
        try:
            task = cls().task()
        except (AssertionError, NotImplementedError, TypeError) as error:
            # A base class: subclasses define its sizes, stages or data.
            print(f"{name}: no experiment of its own: {error}", file=sys.stderr)
            continue
        (place / f"{name}.txt").write_text(base_hyperparams.nested_struct_to_text(task))
    pack(place)


def classes() -> list[tuple[str, type[base_experiment.BaseExperiment]]]:
    """The experiments that are defined in the modules themselves, with their names."""
    found = []
    for module in (importlib.import_module(f"{PLACE}.{name}") for name in MODULES):
        for name, cls in inspect.getmembers(module, inspect.isclass):
            own = cls.__module__ == module.__name__ and name not in NO_LANGUAGE_MODELS
            if own and issubclass(cls, base_experiment.BaseExperiment):
                found.append((name, cls))
    return found
