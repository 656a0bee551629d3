"""Every key that the queue has in Redis, with its type and its life.

All names start with one prefix, so that several installations can share a server. Scripts build the
same names from the prefix; a Redis cluster, which would need them declared, is not supported.

    key                        type    what, and how long
    job:{id}                   hash    payload, state, epoch, seq, counters, times; from enqueue
                                       until ``forget``'s seconds after its row recorded the end
    log:{id}                   stream  the job's entries, ids ``<seq>-0``; expires with job:{id}
    order                      string  counter that numbers enqueued jobs; for ever
    queue:{model}:{team}       zset    queued jobs of a team by order; while it has any
    waiting:{model}            zset    queued jobs of a model by the time they came (ms); while any
    active:{model}             zset    teams with queued jobs by tokens served; while any
    idle:{model}               zset    teams without queued jobs by tokens served; teams that the
                                       others have overtaken are dropped when there are many
    fair:{model}               hash    ``floor``, ``last``: where a team starts when none is active
    wake:{model}               list    a few elements when jobs came: wakes idle workers
    wake:{model}:full          list    the same for workers that have nothing but lanes left
    deadlines                  zset    queued jobs that have a deadline (ms)
    paused                     set     models from which nothing is claimed
    ended                      zset    jobs whose end is logged and not yet recorded, by time (ms)
    ended:notice               list    one element when something ended: wakes the keeper
    workers                    zset    worker processes by the time (ms) at which their lease lapses
    worker:{name}              hash    model, slots, info, drain, paused, suspect; with the lease
    worker:{name}:jobs         set     jobs that it holds; with the lease
    worker:{name}:cancels      set     jobs that it holds and that somebody stopped; with the lease
    unplaced                   set     models that no worker can be started for; seconds
    loading:{model}            string  JSON: how far a worker has loaded it; seconds
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """Names of keys under ``prefix``."""

    prefix: str = "llmasos"

    def _key(self, *parts: str) -> str:
        return ":".join((self.prefix, *parts))

    def job(self, job_id: str) -> str:
        return self._key("job", job_id)

    def log(self, job_id: str) -> str:
        return self._key("log", job_id)

    def waiting(self, model: str) -> str:
        return self._key("waiting", model)

    def active(self, model: str) -> str:
        return self._key("active", model)

    def idle(self, model: str) -> str:
        return self._key("idle", model)

    def wake(self, model: str) -> str:
        return self._key("wake", model)

    def wake_full(self, model: str) -> str:
        return self._key("wake", model, "full")

    def queue(self, model: str, team: str) -> str:
        return self._key("queue", model, team)

    @property
    def paused(self) -> str:
        return self._key("paused")

    @property
    def unplaced(self) -> str:
        return self._key("unplaced")

    @property
    def ended(self) -> str:
        return self._key("ended")

    @property
    def ended_notice(self) -> str:
        return self._key("ended", "notice")

    @property
    def workers(self) -> str:
        return self._key("workers")

    def worker(self, name: str) -> str:
        return self._key("worker", name)

    def worker_jobs(self, name: str) -> str:
        return self._key("worker", name, "jobs")

    def worker_cancels(self, name: str) -> str:
        return self._key("worker", name, "cancels")

    def loading(self, model: str) -> str:
        return self._key("loading", model)
