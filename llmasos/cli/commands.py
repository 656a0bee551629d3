"""The commands. Each opens a model, does one thing, and says in a sentence what went wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from llmasos.cli.doctor import examine
from llmasos.errors import LLMasOSError
from llmasos.model import LLMa, Options

DEFAULT_MODEL = "gemma-3-270m"
ENCODER = "all-minilm-l6-v2"
MAX_FILE = 2_000_000

app = typer.Typer(
    help="Large language models, in this process or on a portal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Model = Annotated[
    str | None, typer.Option("--model", "-m", help="An id, folder, file or hub name.")
]
Url = Annotated[str | None, typer.Option("--url", envvar="LLMASOS_URL", help="A portal's address.")]
Key = Annotated[str | None, typer.Option("--key", envvar="LLMASOS_API_KEY", help="Its API key.")]


@app.command()
def run(
    prompt: Annotated[str, typer.Argument(help="The text to continue; - reads it from stdin.")],
    model: Model = None,
    url: Url = None,
    key: Key = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the likeliest.")] = 0.7,
    seed: Annotated[int | None, typer.Option(min=0, help="Makes an answer repeatable.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask, instead of continuing.")] = False,
) -> None:
    """Continue a text, token by token."""
    options: Options = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    text = sys.stdin.read(MAX_FILE) if prompt == "-" else prompt
    with _open(model, url, key) as llm:
        asked = [{"role": "user", "content": text}]
        with llm.stream_chat(asked, **options) if chat else llm.stream(text, **options) as stream:
            for piece in stream:
                out.print(piece, end="", markup=False, soft_wrap=True)
                out.file.flush()
        out.print()


@app.command()
def summarize(
    file: Annotated[Path, typer.Argument(help="A text file; - reads from stdin.")],
    model: Model = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Say in one sentence what a text says, in English or Chinese."""
    text = sys.stdin.read(MAX_FILE) if str(file) == "-" else _read(file)
    with _open(model, url, key) as llm:
        out.print(llm.summarize(text), markup=False, soft_wrap=True)


@app.command()
def embed(
    texts: Annotated[list[str], typer.Argument(help="The texts; - reads one a line from stdin.")],
    model: Model = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Make a vector of each text: one line of JSON each."""
    given = sys.stdin.read(MAX_FILE).splitlines() if texts == ["-"] else texts
    with _open(model or ENCODER, url, key) as llm:
        for vector in llm.embed(given):
            print(json.dumps(vector))


@app.command()
def models(url: Url = "http://127.0.0.1:8000", key: Key = None) -> None:
    """List what a portal offers."""
    from llmasos.client import Http

    with _said():
        http = Http(url or "", api_key=key)
        try:
            offered = http.models()
        finally:
            http.close()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("model", "kind", "context", "parameters"):
        table.add_column(column, justify="left" if column in {"model", "kind"} else "right")
    for model in offered:
        values = (model.get(k) for k in ("id", "kind", "context_length", "parameters"))
        table.add_row(*(f"{v:,}" if isinstance(v, int) else str(v or "–") for v in values))
    out.print(table)


@app.command()
def doctor(url: Url = None, key: Key = None) -> None:
    """Look at what is installed, prepared and reachable, and say what is missing."""
    healthy = True
    for finding in examine(url, key):
        mark = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[dim]·[/]"}[finding.good]
        out.print(f"{mark} {finding.what}: {finding.detail}", soft_wrap=True)
        healthy = healthy and finding.good is not False
    if not healthy:
        raise typer.Exit(1)


@contextmanager
def _open(model: str | None, url: str | None, key: str | None) -> Iterator[LLMa]:
    with _said():
        if url:
            opened = LLMa.connect(url, api_key=key, model=model)
        else:
            with err.status("Loading the model…"):
                opened = LLMa.from_pretrained(model or DEFAULT_MODEL)
        with opened:
            yield opened


@contextmanager
def _said() -> Iterator[None]:
    """An error is one sentence and exit code 1; Ctrl-C ends quietly."""
    try:
        yield
    except LLMasOSError as error:
        err.print(f"[red]✗[/] {_plain(error.message)}", soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        out.print()
        raise typer.Exit(130) from None


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _read(file: Path) -> str:
    with _said():
        try:
            if file.stat().st_size > MAX_FILE:
                raise LLMasOSError(f"{file} is larger than {MAX_FILE:,} bytes. Use a shorter text.")
            return file.read_text(encoding="utf-8")
        except OSError as error:
            raise LLMasOSError(f"{file} can't be read: {error.strerror}. Check the path.") from None
        except UnicodeDecodeError:
            raise LLMasOSError(f"{file} is not UTF-8 text. Convert it first.") from None
