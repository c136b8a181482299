"""Command line: `python -m benchmarks COMMAND`."""

import argparse
import importlib
import sys
from typing import NoReturn

from benchmarks import MissingError
from benchmarks import UsageError


COMMANDS = {  # command -> its module and what it does
    "run": ("runner", "every sampler on every problem with every seed, resumable"),
    "report": ("report", "the table on the terminal and one self-contained HTML page"),
    "optima": ("optima", "optimum and random median of every problem"),
    "training-study": ("training_study", "a network's regularisation, told the model or not"),
    "figure": ("figure", "one figure of a paper on hypernetworks, built again"),
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
        for name, (path, summary) in COMMANDS.items():
            command = commands.add_parser(name, help=summary, description=summary)
            if sys.argv[1:2] == [name]:  # some of the others need torch, which not everybody has
                module = importlib.import_module(f"benchmarks.{path}")
                module.add_arguments(command)
                command.set_defaults(main=module.main)
        args = parser.parse_args()
        return int(args.main(args))
    except (UsageError, MissingError) as error:
        print(f"error: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        print(f"error: {error}; pip install '.[benchmarks,torch]'", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
