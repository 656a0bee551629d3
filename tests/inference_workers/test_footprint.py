"""What only a start needs is given back, and nothing that was written is lost."""

from __future__ import annotations

import subprocess
import sys

from inference_workers.footprint import unwritten

SMAPS = """\
1000-3000 r-xp 00000000 fe:00 1   /lib/code.so
Rss:                   8 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
3000-4000 r-xp 00000000 fe:00 1   /lib/written to.so
Anonymous:             4 kB
4000-5000 r--p 00000000 fe:00 1   /lib/constants.so (deleted)
Anonymous:             0 kB
5000-6000 rw-p 00000000 fe:00 1   /lib/variables.so
Anonymous:             0 kB
6000-7000 r-xp 00000000 00:00 0   [vdso]
Anonymous:             0 kB
7000-8000 r-xp 00000000 00:00 0
Anonymous:             0 kB
"""

STARTED = """
import torch
from inference_workers.footprint import give_back

def mapped():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))

states = torch.ones(4, 4)
before = mapped()
give_back()
after = mapped()
assert (states @ states).sum() == 64 and torch.sort(torch.arange(9).flip(0)).values[0] == 0
import json; print(json.dumps([before, after, mapped()]))
"""


def test_only_mappings_of_files_that_nobody_wrote_to_are_taken() -> None:
    assert list(unwritten(SMAPS)) == [(0x1000, 0x3000), (0x4000, 0x5000)]


def test_the_pages_of_a_start_go_and_those_that_are_used_come_back() -> None:
    said = subprocess.check_output([sys.executable, "-c", STARTED], text=True)
    before, after, then = (int(number) for number in said.strip("[]\n").split(","))
    assert before > 50_000  # torch's own, in KiB
    assert after < before / 4
    assert then < before / 2
