"""Plans, reports and checkpoints as text and as JSON."""

from collections.abc import Iterable, Mapping
from typing import Any

from converters.paxml import Checkpoint
from converters.paxml.state import optimizer_kinds
from converters.plan import Plan
from converters.rules import detect
from converters.write import Report
from efficientids_flax.settings import assumed_lines
from efficientids_flax.text import size_text, table
from efficientids_flax.tree import flatten

PARAMS = "mdl_vars/params/"


def plan_text(plan: Plan) -> str:
    """The plan as a table, and its totals."""
    rows = [("target", "source", "operation", "shape", "dtype")]
    for leaf in plan.leaves:
        names = leaf.sources
        named = names[0] + (f" (+{len(names) - 1})" if len(names) > 1 else "")
        rows.append((leaf.target, named, leaf.operation, str(list(leaf.shape)), leaf.dtype.name))
    ignored = [f"ignored: {path} ({reason})" for path, reason in plan.ignored]
    told = [*_notes(plan.notes), *assumed_lines(plan.assumed)]
    return "\n".join([table(rows), *ignored, *told, summary(plan)])


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan for programs."""
    return {
        "source": plan.source,
        "step": plan.step,
        "layout": plan.layout,
        "family": plan.family,
        "leaves": [leaf.row() for leaf in plan.leaves],
        "ignored": [{"source": path, "reason": reason} for path, reason in plan.ignored],
        "config": plan.config,
        "provenance": plan.provenance,
        "notes": list(plan.notes),
        "assumed": plan.assumed,
        "bytes": plan.nbytes,
    }


def summary(plan: Plan) -> str:
    """One line about a plan."""
    params = sum(leaf.nbytes for leaf in plan.leaves if leaf.target.startswith("params/"))
    step = "" if plan.step is None else f", step {plan.step}"
    of_parameters = f" ({size_text(params)} of parameters)" if params else ""
    return (
        f"{plan.source}: {plan.layout}{step}, family {plan.family}; "
        f"{len(plan.leaves)} leaves, {size_text(plan.nbytes)}{of_parameters}"
    )


def report_text(report: Report) -> str:
    """What a conversion did, in a few lines."""
    plan = report.plan
    checked = sum(record["verified"] for record in report.records.values())
    lines = [*_notes(plan.notes), *assumed_lines(plan.assumed, report.output or "OUT")]
    lines.append(summary(plan))
    lines += [
        f"warning: {target}: {count} values are NaN or infinite"
        for target, count in report.nonfinite.items()
    ]
    lines.append(
        f"{report.output}: written in {report.seconds:.1f} s; {checked} of {len(report.records)} "
        "leaves read back and compared"
    )
    return "\n".join(lines)


def report_json(report: Report) -> dict[str, Any]:
    """What a conversion did, for programs; every leaf is in OUT/manifest.json."""
    plan = report.plan
    return {
        "output": report.output,
        "seconds": report.seconds,
        "source": plan.source,
        "step": plan.step,
        "layout": plan.layout,
        "family": plan.family,
        "leaves": len(report.records),
        "verified": sum(bool(record["verified"]) for record in report.records.values()),
        "bytes": plan.nbytes,
        "nonfinite": report.nonfinite,
        "notes": list(plan.notes),
        "assumed": plan.assumed,
    }


def checkpoint_text(about: Mapping[str, Any]) -> str:
    """What `checkpoint_json` says, for people."""
    rows = [("leaf", "shape", "dtype", "bytes")]
    rows += [
        (leaf["path"], str(leaf["shape"]), leaf["dtype"], str(leaf["bytes"]))
        for leaf in about["leaves"]
    ]
    config = flatten(about["config"] or {}, separator=".", keep_empty=True)
    origins = about["origins"].get("model", {})
    of_key = {key: f" ({origins[key]})" if key in origins else "" for key in config}
    return "\n".join(
        [
            table(rows),
            *_notes(about["notes"]),
            f"checkpoint  {about['url']}",
            f"layout      {about['layout']}, version {about['version']} ({about['era']})",
            f"step        {about['step']}",
            f"leaves      {len(about['leaves'])}, {size_text(about['bytes'])}",
            f"optimizer   {', '.join(about['optimizer']) or 'none'}",
            f"family      {about['family']}",
            *(f"  {key} = {value}{of_key[key]}" for key, value in config.items()),
            *assumed_lines(about["assumed"]),
        ]
    )


def checkpoint_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """What is in a checkpoint: layout, tree, sizes, optimizer, family."""
    leaves = [leaf.spec for leaf in checkpoint.leaves.values()]
    params = {
        path.removeprefix(PARAMS): leaf
        for path, leaf in checkpoint.leaves.items()
        if path.startswith(PARAMS)
    }
    return {
        "url": checkpoint.url,
        "layout": checkpoint.layout.kind,
        "version": checkpoint.layout.version,
        "era": checkpoint.layout.era,
        "step": checkpoint.step,
        "bytes": sum(spec.nbytes for spec in leaves),
        "optimizer": optimizer_kinds(list(checkpoint.leaves)),
        "family": detect(params),
        **_settings(checkpoint),
        "masked": list(checkpoint.masked),
        "leaves": [
            {
                "path": spec.path,
                "shape": list(spec.shape),
                "dtype": spec.dtype.name,
                "bytes": spec.nbytes,
                "location": spec.location,
            }
            for spec in leaves
        ],
    }


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """The configuration that a conversion would write, as far as it can be told."""
    from converters.errors import ConversionError
    from converters.plan import PlanOptions, make_plan

    try:
        plan = make_plan(checkpoint, PlanOptions(optimizer="none"))
    except ConversionError as error:
        unknown = {"not known": str(error).splitlines()[0]}
        notes = list(checkpoint.notes)
        return {"config": unknown, "origins": {}, "assumed": {}, "notes": notes}
    return {
        "config": plan.config["model"],
        "origins": plan.config["origins"],
        "assumed": plan.assumed,
        "notes": list(plan.notes),
    }


def _notes(notes: Iterable[str]) -> list[str]:
    return [f"note: {note}" for note in notes]
