"""``python -m tests.faults [--full] [--seed N] [PROMISE…]``: run the faults and print a table.

Short doses take about three minutes; ``--full`` gives the counts that the promises name.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable

from tests.faults.cuts import random_cuts
from tests.faults.fairness import greedy_team
from tests.faults.guided import killed_inside_json
from tests.faults.leaks import many_jobs
from tests.faults.limits import key_limits
from tests.faults.overload import overload
from tests.faults.redis_loss import flushed_redis, killed_redis
from tests.faults.report import Row
from tests.faults.slow_readers import stalled_readers
from tests.faults.stop import cancelled_jobs
from tests.faults.worker_death import (
    frozen_worker,
    killed_workers,
    lost_before_start,
    poison,
    rolling_restart,
)

Fault = Callable[[bool, int], Row]

FAULTS: dict[str, Fault] = {
    "R1": lambda full, seed: killed_workers(
        doses=20 if full else 3, streams=64 if full else 16, seed=seed, lease=6.0 if full else 2.0
    ),
    "R1t": lambda full, seed: killed_workers(
        doses=20 if full else 1,
        streams=64 if full else 12,
        seed=seed,
        lease=6.0 if full else 2.0,
        small_model=True,
    ),
    "R1b": lambda full, seed: poison(batch=32, seed=seed),
    "R2": lambda full, seed: frozen_worker(
        doses=5 if full else 1, seed=seed, lease=6.0 if full else 2.0
    ),
    "R3": lambda full, seed: lost_before_start(doses=10 if full else 2, seed=seed),
    "R4": lambda full, seed: killed_redis(
        doses=5 if full else 1, seed=seed, lease=6.0 if full else 2.0
    ),
    "R4b": lambda full, seed: flushed_redis(
        doses=5 if full else 1, seed=seed, lease=6.0 if full else 2.0
    ),
    "R6": lambda full, seed: rolling_restart(
        doses=10 if full else 2, streams=32 if full else 12, seed=seed
    ),
    "R7": lambda full, seed: random_cuts(
        cuts=1000 if full else 60, seed=seed, portals=2 if full else 1
    ),
    "R8": lambda full, seed: stalled_readers(
        seconds=600 if full else 10, seed=seed, noise=0.0 if full else 0.02
    ),
    "R9": lambda full, seed: cancelled_jobs(doses=500 if full else 24, seed=seed),
    "R11": lambda full, seed: overload(
        seconds=300 if full else 8, seed=seed, slow=0.1 if full else 0.5
    ),
    "R16": lambda full, seed: killed_inside_json(
        doses=20 if full else 2,
        streams=32 if full else 10,
        seed=seed,
        lease=6.0 if full else 2.0,
    ),
    "R17": lambda full, seed: many_jobs(doses=100_000 if full else 3_000, seed=seed),
    "F1": lambda full, seed: greedy_team(queued=1000, seconds=20 if full else 4, seed=seed),
    "F2": lambda full, seed: key_limits(seed=seed),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("promises", nargs="*", metavar="PROMISE", help="R1, R1b, … (all)")
    parser.add_argument("--full", action="store_true", help="full counts instead of short doses")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    args = parser.parse_args()
    if unknown := set(args.promises) - set(FAULTS):
        parser.error(f"{', '.join(unknown)}: not among {', '.join(FAULTS)}")
    broken = 0
    for name in args.promises or FAULTS:
        begin = time.monotonic()
        try:
            row = FAULTS[name](args.full, args.seed)
        except TimeoutError as error:
            row = Row(name, "did not come to its end", args.seed, failures=[str(error)])
        broken += bool(row.failures)
        print(f"{row}  [{time.monotonic() - begin:.0f} s]", flush=True)
    return min(broken, 1)


if __name__ == "__main__":
    sys.exit(main())
