"""``llmasos``: models from the command line, in this process or on a portal."""

from llmasos.cli.commands import app

__all__ = ["app"]
