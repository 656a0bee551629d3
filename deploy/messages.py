"""Compiles translations: each ``.po`` below ``locale`` becomes a ``.mo`` beside it.

In Python alone, because Django's own command needs gettext's programs, which a machine may lack.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polib

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    broken = 0
    for path in sorted((ROOT / "locale").glob("*/LC_MESSAGES/*.po")):
        try:
            polib.pofile(str(path), check_for_duplicates=True).save_as_mofile(
                str(path.with_suffix(".mo"))
            )
        except (OSError, ValueError) as error:
            print(f"{path.relative_to(ROOT)}: {error}", file=sys.stderr)
            broken = 1
    return broken


if __name__ == "__main__":
    sys.exit(main())
