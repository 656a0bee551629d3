#!/usr/bin/env python3
"""Django's command line, and the house's: up, setup, worker, tasks, models, users, keys."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    from portal.startup import run

    run(sys.argv)
