"""Of what the children say, people see warnings; the log files keep the rest, within a size."""

from __future__ import annotations

from pathlib import Path

import pytest

from portal.supervisor.children import LogFile
from portal.supervisor.said import worth_saying


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-24T04:04:18.636Z [error    ] request_failed   [x] code=500",
        "2026-11-24T04:04:18.636Z [warning  ] keeper_waits",
        "Bad setting PORT='x': Input should be a valid integer",
        "ModuleNotFoundError: No module named 'x'",
        "12:M 24 Nov 2026 04:08:23.040 # Fatal error: can't open the append log file",
    ],
)
def test_a_warning_is_shown(line: str) -> None:
    assert worth_saying(line) == line


@pytest.mark.parametrize(
    "line",
    ["2026-11-24T04:04:18.636Z [info     ] request_finished", "", "  File x", '{"level": "info"}'],
)
def test_the_everyday_is_not(line: str) -> None:
    assert worth_saying(line) is None


def test_a_workers_warning_is_shown_without_its_wrapping() -> None:
    line = '{"worker": "w1", "event": "lease_lost", "level": "warning", "timestamp": "2026"}'
    assert worth_saying(line) == "warning: lease_lost worker=w1"


def test_a_workers_refusal_is_shown_as_its_sentence() -> None:
    line = '{"error": {"code": "x", "message": "m is not prepared."}}'
    assert worth_saying(line) == "m is not prepared."


def test_a_log_file_stays_within_its_size(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "x.log", limit=1000)
    for number in range(500):
        log.write(f"line {number}\n")
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["x.log", "x.log.1"]
    assert sum(file.stat().st_size for file in files) <= 2100
    assert "line 499" in (tmp_path / "x.log").read_text()
