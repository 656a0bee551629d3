"""The command line: one thing at a time, errors in one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llmasos.cli import app
from tests.inference_workers.model_files import write_llama
from tests.llmasos.portal_double import KEY, Portal, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def portal() -> Iterator[Portal]:
    with serving() as portal:
        yield portal


def call(*arguments: str, **options: object) -> Result:
    return CliRunner().invoke(app, [*arguments], **options)  # type: ignore[arg-type]


def refused(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    return lines[0]


def test_run_streams_from_a_portal(portal: Portal) -> None:
    result = call("run", "Say [bold]hello[/bold]", "--url", portal.url, "--key", KEY, "--seed", "3")
    assert result.exit_code == 0
    assert result.stdout == "Hello 你好🙂\n"
    assert portal.seen[-1][1]["prompt"] == "Say [bold]hello[/bold]"
    assert portal.seen[-1][1]["seed"] == 3


def test_run_reads_a_pipe_and_may_chat(portal: Portal) -> None:
    result = call("run", "-", "--chat", "--url", portal.url, input="Who are you?")
    assert result.stdout == "Hello 你好🙂\n"
    assert portal.seen[-1][1]["messages"] == [{"role": "user", "content": "Who are you?"}]


def test_what_a_model_writes_is_no_markup(portal: Portal) -> None:
    portal.pieces = ("[red]", "a[/red] [", "/]")
    assert call("run", "x", "--url", portal.url).stdout == "[red]a[/red] [/]\n"


def test_run_uses_a_model_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", str(tmp_path))
    folder = write_llama(tmp_path / "tiny")
    result = call("run", "the", "--model", str(folder), "--max-tokens", "4", "--temperature", "0")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("\n")


def test_summarize_reads_a_file(portal: Portal, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("河流把沙子带到大海。")
    assert call("summarize", str(file), "--url", portal.url).stdout == "Hello 你好🙂\n"
    assert "河流把沙子带到大海。" in portal.seen[-1][1]["prompt"]


def test_models_are_listed(portal: Portal) -> None:
    result = call("models", "--url", portal.url)
    assert "gemma-3-270m" in result.stdout
    assert "32,768" in result.stdout
    assert "instruct" in result.stdout


def test_errors_are_one_sentence(portal: Portal, tmp_path: Path) -> None:
    assert "Make a new one" in refused(call("run", "x", "--url", portal.url, "--key", "wrong"))
    assert "It offers" in refused(call("run", "x", "--url", portal.url, "-m", "nothing"))
    assert "can't be reached" in refused(call("models", "--url", "http://127.0.0.1:9"))
    missing = refused(call("summarize", str(tmp_path / "no[where]"), "--url", portal.url))
    assert "no[where] can't be read" in missing
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refused(call("summarize", str(tmp_path / "binary"), "--url", portal.url))
    portal.mode = "busy"
    assert "queue is full" in refused(call("run", "x", "--url", portal.url))


def test_doctor_says_what_is_there(portal: Portal) -> None:
    result = call("doctor", "--url", portal.url)
    assert result.exit_code == 0
    assert "gemma-3-270m" in result.stdout
    broken = call("doctor", "--url", "http://127.0.0.1:9")
    assert broken.exit_code == 1
    assert "can't be reached" in broken.stdout


def test_help_is_quick_and_needs_no_torch() -> None:
    code = "import sys; from llmasos.cli import app; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n"
