"""From a prepared folder to a model in memory. Weights are mapped, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from inference_workers.errors import ModelError
from inference_workers.layers.packing import KINDS
from inference_workers.models.derived import resolved_config
from inference_workers.models.folder import find_weights, read_config
from inference_workers.models.manifest import Manifest, read_manifest
from inference_workers.models.resources import require_memory

if TYPE_CHECKING:
    import torch

    from inference_workers.layers.linear import Matrix

DTYPES = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}
"""A manifest's formats in torch's names."""
PACKED_FORMATS = ("int8", "int4")
MEMORY_MARGIN = 1.1
"""What building a model takes beyond its own tensors, at most: one layer's copy while it moves."""


class WeightReader(Mapping[str, "Matrix"]):
    """A checkpoint's tensors by name, over all of its files.

    A tensor's bytes are pages of the file until somebody copies them: reading a name costs nothing
    much, and a tensor that nobody asks for is never read. Views stay valid after ``close``.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self._files: dict[str, Any] = {}
        self._stack = ExitStack()
        found = find_weights(folder)
        self._headers = found.tensors
        try:
            for path in found.files:
                opened = self._stack.enter_context(safe_open(str(path), framework="pt"))
                self._files |= dict.fromkeys(opened.keys(), opened)
        except SafetensorError as error:
            self._stack.close()
            raise ModelError(
                f"{folder.name}'s weights can't be read ({error}). Prepare the model again.",
                code="corrupt",
            ) from error

    def __getitem__(self, name: str) -> Matrix:
        from inference_workers.layers.linear import Packed

        tensor: torch.Tensor = self._files[name].get_tensor(name)
        header = self._headers[name]
        if not header.kind:
            return tensor
        rows, columns = header.shape
        return Packed(KINDS[header.kind], tensor, rows, columns)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._files = {}
        self._stack.close()


def library_config(folder: Path, model_id: str) -> Any:
    """``config.json`` as transformers' own configuration, checked for what it may not say."""
    read_config(folder)
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # strict configuration classes raise many kinds
        raise ModelError(
            f"{model_id}'s config.json is not one that its architecture can have "
            f"({type(error).__name__}). Prepare the model again, from a good copy.",
            code="corrupt",
        ) from error


def load(
    folder: Path, *, device: torch.device | str, dtype: torch.dtype | None = None
) -> tuple[Any, Manifest]:
    """Build the folder's model on ``device``, in ``dtype`` or else as it is stored, if the device
    computes in that.

    Raises:
        ModelError: not prepared, damaged, of an unknown architecture, or too large for the memory.
    """
    import torch

    from inference_workers.layers.linear import compute_dtype, packed_dtype, stays_packed
    from inference_workers.models import registry

    manifest = read_manifest(folder)
    config = resolved_config(folder)
    if config is None or not registry.is_ours(config):
        config = library_config(folder, manifest.id)
    place = torch.device(device)
    packed = manifest.format in PACKED_FORMATS
    if dtype is None and manifest.kind == "embedding":
        dtype = torch.float32  # its vectors are compared with others': they must not depend on here
    elif dtype is None and packed:
        dtype = packed_dtype(place)
    elif dtype is None:
        if manifest.format not in DTYPES:
            raise ModelError(
                f"{manifest.id} has no weights that can run (format {manifest.format}). Prepare it "
                "again."
            )
        dtype = compute_dtype(getattr(torch, DTYPES[manifest.format]), place)
    if place.type == "cpu":
        size = manifest.parameters * dtype.itemsize
        if packed and stays_packed(dtype, place):
            size = manifest.bytes
        needed = int(size * MEMORY_MARGIN)
        require_memory(needed, manifest.id)
    build = registry.build_encoder if manifest.kind == "embedding" else registry.build
    with WeightReader(folder) as weights:
        try:
            model = build(config, weights, dtype=dtype, device=device)
        except KeyError as error:
            raise ModelError(
                f"{manifest.id} lacks the weight {error.args[0]!r}. Prepare the model again.",
                code="missing_weights",
            ) from error
        except ModelError as error:
            raise ModelError(
                f"{manifest.id} can't be served. {error.message}", code=error.code
            ) from error
    return model, manifest
