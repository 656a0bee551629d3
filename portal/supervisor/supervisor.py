"""The loop over all children: starts those that are due, says who ended, and ends them in order.

One thread, which spawns, reads the children's output, and sleeps in ``select`` otherwise. Signals
and ended children wake it through a pipe.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import FrameType

import redis
from django.conf import settings

from inference_workers.queue import Leases, connect
from portal.supervisor import guard, tree
from portal.supervisor.children import Child, Say, Spec, describe_end
from portal.supervisor.lives import EXIT_REFUSED
from portal.supervisor.lock import Lock
from portal.supervisor.placement import decide
from portal.supervisor.watch import View, Watch

TICK_S = 0.5
ONE_KEYPRESS_S = 1.0
"""A terminal and a shell may both tell us of one Ctrl-C."""

STOP_ORDER = (("worker",), ("portal", "tasks"), ("valkey",))
"""Workers hand their jobs over while somebody still listens; Redis is needed by all others."""


class Supervisor:
    """``say`` prints a line at the console. Make it, ``start_guard``, ``add`` children, ``run``."""

    def __init__(self, *, say: Say, lock: Lock) -> None:
        data: Path = settings.LLMASOS.data
        self.mark = sha256(os.fsencode(data)).hexdigest()[:24]
        self.children: dict[str, Child] = {}
        self.on_ready: Callable[[], None] = lambda: None
        self._say, self._lock, self._logs = say, lock, data / "logs"
        self._guard: subprocess.Popen[bytes] | None = None
        self._selector = selectors.DefaultSelector()
        self._stopping = 0
        self._looping = False
        self._watch: Watch | None = None
        self._seen: View | None = None
        self._used_at: dict[str, float] = {}
        self._refused: tuple[str, ...] = ()
        self._announced = False

    # -- signals ----------------------------------------------------------------------------------

    def listen(self) -> None:
        """From here on, Ctrl-C and SIGTERM are heard, and an ended child wakes the loop."""
        wake, woken = os.pipe()
        for end in (wake, woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        self._selector.register(wake, selectors.EVENT_READ, None)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping += 1
        if not self._looping:
            raise KeyboardInterrupt  # something long is under way: preparing, migrating

    # -- children ---------------------------------------------------------------------------------

    def start_guard(self) -> None:
        """Whatever a killed predecessor left is ended first: we hold the lock, so it is nobody's.
        Every process started from here on carries our mark."""
        left = guard.sweep(self.mark)
        if left:
            self._say(f"Ended {left} processes that an earlier run had left behind.")
        self._guard = self._new_guard()
        os.environ[guard.NAME] = self.mark

    def _new_guard(self) -> subprocess.Popen[bytes]:
        unmarked = {name: value for name, value in os.environ.items() if name != guard.NAME}
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", str(Path(guard.__file__)), self.mark],
            stdin=subprocess.PIPE,
            env=unmarked,
            start_new_session=True,
        )

    def add(self, spec: Spec) -> Child:
        """A child that is to run; the loop starts it, or ``start`` does at once."""
        old = self.children.get(spec.name)
        if old:
            old.log.close()
        child = Child(spec, mark=self.mark, logs=self._logs, cwd=settings.BASE_DIR, say=self._say)
        self.children[spec.name] = child
        return child

    def start(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:
            self._say(f"{child.spec.name} can't be started: {error}")
            child.life.started(time.monotonic())
            child.life.ended(1, time.monotonic())
            return
        for stream in child.streams:
            self._selector.register(stream, selectors.EVENT_READ, child)
        self._note()

    def _note(self) -> None:
        pids = {name: child.pid for name, child in self.children.items() if child.pid}
        state = "stopping" if self._stopping else "running"
        note = {"pid": os.getpid(), "port": settings.LLMASOS.port, "url": settings.LLMASOS.url}
        with contextlib.suppress(OSError):  # a full disk: what runs goes on
            self._lock.note({**note, "state": state, "children": pids})

    # -- the loop ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Start what is due and look after it, until told to stop."""
        self._looping = True
        self._watch = Watch()
        self._watch.start()
        while not self._stopping:
            self._place()
            now = time.monotonic()
            for child in list(self.children.values()):
                if child.life.wants_start(now):
                    self.start(child)
            if not self._announced and self._watch.ready.is_set():
                self._announced = True
                self.on_ready()
            self.wait()

    def wait(self, seconds: float = TICK_S) -> None:
        """Sleep until something happens; take output and ends of children."""
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, 4096)
            elif not key.data.read(key.fileobj):
                self._selector.unregister(key.fileobj)
        for child in list(self.children.values()):
            self._reap(child)
        if self._guard and self._guard.poll() is not None and not self._stopping:
            self._say("The guard ended; starting another.")
            self._guard = self._new_guard()

    def _reap(self, child: Child) -> None:
        streams = child.streams
        code = child.ended()
        if code is None:
            return
        for stream in streams:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(stream)
        expected = child.life.phase == "stopping"
        if child.spec.worker_of and not expected:
            self._report_dead(tree.worker_name(child.spec.worker_of))
        delay = child.life.ended(code, time.monotonic())
        if child.spec.worker_of and code == EXIT_REFUSED and self._watch:
            self._watch.refused.add(child.spec.worker_of)
        if delay is None:
            if not self._stopping:
                self._say(f"{child.spec.name} is stopped.")
            return
        when = f"in {delay:.0f} s" if delay else "now"
        self._say(f"{child.spec.name} {describe_end(code)}; starting it again {when}.")
        for line in child.tail if code > 0 else ():
            self._say(f"    {line[:200]}")
        self._note()

    def _report_dead(self, worker: str) -> None:
        """Its jobs need not wait for its lease to lapse."""
        try:
            with contextlib.closing(connect(settings.REDIS_URL, retries=0)) as client:
                back = Leases(client).release(worker, crashed=True)
        except (redis.exceptions.RedisError, OSError):
            return  # the lease lapses by itself
        if back:
            self._say(f"{len(back)} jobs of {worker} go on with the next worker.")

    # -- placement --------------------------------------------------------------------------------

    def _place(self) -> None:
        view = self._watch.view if self._watch else None
        if view is None or view is self._seen:
            return
        self._seen, now = view, time.monotonic()
        ours = {c.spec.worker_of: c for c in self.children.values() if c.spec.worker_of}
        waiting = {model.id for model in view.models if model.waiting}
        for model in list(self._used_at):
            if model in view.busy or model in waiting:
                self._used_at[model] = now
        choice = decide(view.models, self._used_at, budget=tree.memory_budget(), now=now)
        for model, child in ours.items():
            if model not in choice.run and child.life.phase != "stopping":
                child.stop(now)
                self._used_at.pop(model, None)
            if child.life.phase == "gone":
                if self._watch:
                    self._watch.refused.discard(model)  # nobody tries any more: ask again
                child.log.close()
                del self.children[child.spec.name]
        always = {model.id for model in view.models if model.always}
        for model in choice.run:
            if f"worker-{model}" in self.children:
                continue
            self.add(tree.worker(model, workers=len(choice.run)))
            if model not in always:
                self._used_at[model] = now
                self._say(f"Jobs wait for {model}: starting a worker for it.")
        for model in set(choice.refused) - set(self._refused):
            self._say(
                f"Jobs wait for {model}, and there is no memory for another worker. Stop one: "
                "manage.py models place MODEL off"
            )
        self._refused = choice.refused

    # -- the end ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """End all children in order, each within its time; a second signal ends them at once.
        The portal is not ready from the first moment on, by the note."""
        self._looping = True
        self._stopping, begun = 1, time.monotonic()
        self._note()
        for kinds in STOP_ORDER:
            group = [c for n, c in self.children.items() if n.partition("-")[0] in kinds]
            now = time.monotonic()
            for child in group:
                child.stop(now)
            while any(child.process for child in group):
                self.wait()
                for child in group:
                    hurry = self._stopping > 1 and time.monotonic() - begun > ONE_KEYPRESS_S
                    if hurry or child.overdue(time.monotonic()):
                        child.end_group()
        guard.sweep(self.mark)
        if self._guard and self._guard.stdin:
            self._guard.stdin.close()
            self._guard.wait(10)
