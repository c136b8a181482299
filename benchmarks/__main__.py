"""Command line: `python -m benchmarks COMMAND`."""

import argparse
import importlib
import sys
from typing import NoReturn

from benchmarks import MissingError
from benchmarks import UsageError


COMMANDS = {  # command -> its module, imported in `main`: worker processes need none of them here
    "run": "benchmarks.runner",
    "report": "benchmarks.report",
    "optima": "benchmarks.optima",
    "training-study": "benchmarks.training_study",
    "figure": "benchmarks.figure",
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def main() -> int:
    """Run one command; what the user got wrong is one line and exit status 2."""
    parser = Parser(prog="python -m benchmarks", description="Samplers compared on real problems.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    try:
        for name, path in COMMANDS.items():
            module = importlib.import_module(path)
            summary = (module.__doc__ or "").splitlines()[0]
            command = commands.add_parser(name, help=summary, description=summary)
            module.add_arguments(command)
            command.set_defaults(main=module.main)
        args = parser.parse_args()
        return int(args.main(args))
    except (UsageError, MissingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
