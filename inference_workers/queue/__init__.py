"""What the portal and the workers do in Redis: the fair queue, worker leases, job logs.

Every change of state is one Lua script (``lua/``), so that any process may die between any two
commands. Redis' clock is the only clock. Needs Redis 6.2 or newer, or Valkey; not a cluster.

Who fences what
    A claim gives a job to one worker for one epoch. An append must come from that worker in that
    epoch, and its first number must follow the log's last. Both are checked, because a Redis that
    lost its last second can hand out an epoch twice, to different workers.

What a log holds
    ``Started`` once, as entry 1; deltas; one terminal entry. A later epoch adds no ``Started``: its
    entries carry their epoch, and "resuming" is told by the job's state. So the numbers of a log
    depend on the job alone, not on how often a worker died.

What a loss of Redis' data costs
    The last second (a restart with AOF each second): the worker sends again what is missing. All of
    it: the keeper enqueues the job again from its row, and the log begins again at 1. Because
    sampling depends on seed, choice and token index alone, a greedy or seeded run writes the same
    entries under the same numbers, so a reader that has seen ``seq`` simply goes on after it. Where
    numerics depend on the batch, the rest may differ from what the lost run would have written, but
    numbers never repeat and never skip.
"""

from inference_workers.queue.clients import aconnect, broker_url, connect
from inference_workers.queue.fair import Claim, FairQueue, JobState, QueueFull
from inference_workers.queue.keys import Keys
from inference_workers.queue.leases import LEASE_SECONDS, Leases, Loading, Orders, WorkerInfo
from inference_workers.queue.log import Append, AppendResult, JobLog

__all__ = [
    "LEASE_SECONDS",
    "Append",
    "AppendResult",
    "Claim",
    "FairQueue",
    "JobLog",
    "JobState",
    "Keys",
    "Leases",
    "Loading",
    "Orders",
    "QueueFull",
    "WorkerInfo",
    "aconnect",
    "broker_url",
    "connect",
]
