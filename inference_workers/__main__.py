"""``python -m inference_workers serve | prepare | quantize | measure | check``.

Each command's arguments and work live in its own module; only the chosen one is imported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "serve": ("inference_workers.serve", "load a model and serve jobs until told to stop"),
    "prepare": ("inference_workers.models.prepare", "make a model folder from a source"),
    "quantize": ("inference_workers.models.quantize", "make a lighter model folder of another"),
    "measure": ("inference_workers.measure", "a model folder's memory, speed and perplexity"),
    "check": ("inference_workers.models.check", "compare a model folder with its manifest"),
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m inference_workers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    chosen = None
    for name, (module, help_text) in COMMANDS.items():
        subparser = commands.add_parser(name, help=help_text)
        if arguments[:1] == [name]:
            chosen = import_module(module)
            chosen.add_arguments(subparser)
    args = parser.parse_args(arguments)
    assert chosen is not None
    result = chosen.main(args)
    return int(result or 0)


if __name__ == "__main__":
    sys.exit(main())
