"""Whatever a client sends, it is answered with an event, and the socket lives."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_workers.contract import Delta, Entry, Finished, Usage
from portal.jobs.models import Job
from portal.jobs.viewer import Viewer
from portal.playground import stream
from portal.playground.stream import MAX_WATCHES, WINDOW, Multiplexer

ID = "0" * 31 + "1"


def multiplexer() -> tuple[Multiplexer, list[dict[str, Any]]]:
    said: list[dict[str, Any]] = []

    async def send(text: str) -> None:
        said.append(json.loads(text))

    return Multiplexer(Viewer(session="v"), send), said


def about(kind: str, rest: str) -> str:
    return f'{{"type":"{kind}","job":"{ID}",{rest}}}'


BAD = [
    (None, "bad_message"),
    ("", "bad_json"),
    ("{", "bad_json"),
    ("[" * 2000, "bad_json"),
    ("[]", "bad_message"),
    ("7", "bad_message"),
    ("null", "bad_message"),
    ("x" * 5000, "too_large"),
    ("{}", "unknown_type"),
    ('{"type":"explode"}', "unknown_type"),
    ('{"type":["watch"]}', "unknown_type"),
    ('{"type":{"a":1}}', "unknown_type"),
    ('{"type":"watch"}', "bad_job"),
    ('{"type":"watch","job":7}', "bad_job"),
    ('{"type":"watch","job":"../../etc/passwd"}', "bad_job"),
    (about("watch", '"after":-1'), "bad_number"),
    (about("watch", '"after":1e99'), "bad_number"),
    (about("watch", '"after":true'), "bad_number"),
    (about("watch", '"after":"1"'), "bad_number"),
    (about("watch", '"after":99999999999999999999'), "bad_number"),
    (about("ack", '"seq":null'), "bad_number"),
]


@pytest.mark.parametrize(("text", "code"), BAD)
async def test_a_bad_message_is_named_and_the_next_one_is_answered(text: Any, code: str) -> None:
    one, said = multiplexer()
    await one.receive(text)
    await one.receive('{"type":"ping"}')
    assert [said[0]["type"], said[0]["code"], said[1]["type"]] == ["error", code, "pong"]
    assert len(said[0]["message"]) > 10


async def test_messages_out_of_order_do_no_harm() -> None:
    one, said = multiplexer()
    await one.receive(json.dumps({"type": "ack", "job": ID, "seq": 5}))
    await one.receive(json.dumps({"type": "unwatch", "job": ID}))
    assert said == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["watch", "ack", "unwatch", "cancel", "ping", "x"]) | JSON,
        "job": st.sampled_from([ID, str(uuid.UUID(ID))]) | JSON,
        "after": st.integers() | JSON,
        "seq": st.integers() | JSON,
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(MESSAGE.map(json.dumps) | JSON.map(json.dumps) | st.text(max_size=50), max_size=8))
def test_no_sequence_of_messages_raises(messages: list[str]) -> None:
    async def play() -> None:
        one, said = multiplexer()

        async def nothing(viewer: Viewer, job_id: str) -> Job:
            raise Job.DoesNotExist

        kept, stream.ajob_for = stream.ajob_for, nothing  # no database in here
        try:
            for message in messages:
                await one.receive(message)
            await one.receive('{"type":"ping"}')
        finally:
            stream.ajob_for = kept
        assert said[-1] == {"type": "pong"}
        assert all(m["type"] in ("error", "pong") for m in said)
        await one.close()

    asyncio.run(play())


@pytest.fixture
def long_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose log has a thousand entries at once: the windows are what is looked at here."""

    async def find(viewer: Viewer, job_id: str) -> Job:
        return Job(pk=uuid.UUID(job_id))

    async def events(job: Job, after: int = 0) -> Any:
        for seq in range(after + 1, 1000):
            yield Entry(seq=seq, epoch=1, event=Delta(first=seq, token_ids=(seq,), text="x"))
        yield Entry(seq=1000, epoch=1, event=Finished(reason="stop", usage=Usage()))

    monkeypatch.setattr(stream, "ajob_for", find)
    monkeypatch.setattr(stream, "events", events)


async def watch(one: Multiplexer, after: int = 0, job: str = ID) -> None:
    await one.receive(json.dumps({"type": "watch", "job": job, "after": after}))
    await asyncio.sleep(0.05)


async def test_sending_stops_a_window_after_the_last_acknowledgement(long_job: None) -> None:
    one, said = multiplexer()
    await watch(one)
    assert len(said) == WINDOW
    await one.receive(json.dumps({"type": "ack", "job": ID, "seq": 100}))
    await asyncio.sleep(0.05)
    assert len(said) == WINDOW + 100
    await one.receive(json.dumps({"type": "ack", "job": ID, "seq": 50}))  # late: says nothing new
    await asyncio.sleep(0.05)
    assert one._watches[ID].acked == 100
    assert len(said) == WINDOW + 100
    for seq in (356, 612, 868):
        await one.receive(json.dumps({"type": "ack", "job": ID, "seq": seq}))
        await asyncio.sleep(0.05)
    assert [m["seq"] for m in said] == list(range(1, 1001))
    assert not one.watched()


async def test_acknowledging_what_was_not_sent_is_refused(long_job: None) -> None:
    one, said = multiplexer()
    await watch(one)
    await one.receive(json.dumps({"type": "ack", "job": ID, "seq": 999}))
    assert said[-1]["code"] == "bad_ack"
    await asyncio.sleep(0.05)
    assert len(said) == WINDOW + 1
    await one.close()


async def test_watching_again_starts_again_from_there(long_job: None) -> None:
    one, said = multiplexer()
    await watch(one)
    said.clear()
    await watch(one, after=900)
    assert [m["seq"] for m in said] == list(range(901, 1001))


async def test_one_socket_follows_so_many_jobs_and_not_more(long_job: None) -> None:
    one, said = multiplexer()
    for index in range(MAX_WATCHES + 1):
        await one.receive(json.dumps({"type": "watch", "job": uuid.UUID(int=index).hex}))
    await asyncio.sleep(0.2)
    assert [m["code"] for m in said if m["type"] == "error"] == ["too_many_watches"]
    await one.close()


async def test_nothing_is_sent_after_the_end_of_the_socket(long_job: None) -> None:
    one, said = multiplexer()
    await watch(one)
    await one.close()
    count = len(said)
    await one.receive(json.dumps({"type": "ack", "job": ID, "seq": 100}))
    await watch(one)
    assert len(said) == count
