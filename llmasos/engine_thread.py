"""One thread steps an engine; any thread may run jobs on it and read their events."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from llmasos.errors import GenerationFailed, InvalidRequest, LLMasOSError

if TYPE_CHECKING:
    from inference_workers.engine.protocol import Engine

TERMINAL = frozenset({"finished", "failed", "cancelled"})
Events = queue.SimpleQueue[Any]


class EngineThread:
    """Runs jobs together, as many as the engine has room for; the others wait their turn."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._waiting: list[tuple[Any, Events]] = []
        self._leaving: list[str] = []
        self._readers: dict[str, Events] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="llmasos-engine", daemon=True)
        self._thread.start()

    def run(self, job: Any) -> Generator[Any, None, None]:
        """The job's events until it ends. Leaving the generator early cancels the job."""
        yield from self.follow(job, self.start(job))

    def start(self, job: Any) -> Events:
        """Hand the job over. Its events are for ``follow``."""
        events: Events = queue.SimpleQueue()
        with self._changed:
            if self._closed:
                raise GenerationFailed("The model was closed. Load it again.", code="closed")
            self._waiting.append((job, events))
            self._changed.notify()
        return events

    def follow(self, job: Any, events: Events) -> Generator[Any, None, None]:
        """The events of a started job, as ``run`` gives them."""
        ended = False
        try:
            while not ended:
                event = events.get()
                if isinstance(event, LLMasOSError):
                    ended = True
                    raise event
                ended = event.type in TERMINAL
                yield event
        finally:
            if not ended:
                with self._changed:
                    self._leaving.append(job.id)
                    self._changed.notify()

    def close(self) -> None:
        """End every job and the thread. Closing twice does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _work(self) -> None:
        error: LLMasOSError | None = None
        try:
            while self._admit():
                for job_id, event in self._engine.step():
                    self._hand(job_id, event)
        except Exception as broken:  # a bug of the engine: whoever waits must hear of it
            error = GenerationFailed(f"The engine broke ({type(broken).__name__}: {broken}).")
            raise
        finally:
            self._end(error or GenerationFailed("The model was closed.", code="closed"))

    def _admit(self) -> bool:
        """Take in what others asked for; wait where there is nothing to do. False: closed."""
        with self._changed:
            while not (self._closed or self._waiting or self._leaving or self._engine.busy):
                self._changed.wait()
            if self._closed:
                return False
            leaving, self._leaving = self._leaving, []
            room = self._engine.capacity()
            arriving, self._waiting = self._waiting[:room], self._waiting[room:]
        for job_id in leaving:
            self._engine.remove(job_id)
            self._readers.pop(job_id, None)
            with self._changed:
                self._waiting = [(j, e) for j, e in self._waiting if j.id != job_id]
        for job, events in arriving:
            if job.id not in leaving:
                self._add(job, events)
        return True

    def _add(self, job: Any, events: Events) -> None:
        from inference_workers.errors import RequestError

        try:
            self._engine.add(job)
        except RequestError as error:
            events.put(InvalidRequest(error.message, code=error.code))
        else:
            self._readers[job.id] = events

    def _hand(self, job_id: str, event: Any) -> None:
        reader = self._readers.get(job_id)
        if reader is not None:
            reader.put(event)
            if event.type in TERMINAL:
                del self._readers[job_id]

    def _end(self, error: LLMasOSError) -> None:
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, []
        for events in [*self._readers.values(), *(events for _, events in waiting)]:
            events.put(error)
        self._readers.clear()
