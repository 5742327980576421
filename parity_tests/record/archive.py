"""Packs a recording as one `.tar.xz` whose bytes depend only on its files."""

from __future__ import annotations

import io
import lzma
import pathlib
import tarfile


def pack(place: pathlib.Path) -> pathlib.Path:
    """Write `<place>.tar.xz` beside a recording's directory."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(place.rglob("*")):
            entry = tarfile.TarInfo(str(path.relative_to(place)))
            if path.is_dir():
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                data = path.read_bytes()
                entry.size, entry.mode = len(data), 0o644
                archive.addfile(entry, io.BytesIO(data))
    target = place.with_name(f"{place.name}.tar.xz")
    target.write_bytes(lzma.compress(raw.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    return target
