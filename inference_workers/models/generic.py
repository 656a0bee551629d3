"""Any other causal model, by transformers' own module: batched, slower, equally right.

Keys and values live in the engine's blocks like everybody's. Each call gathers them, left-padded,
into a ``DynamicCache``, runs the module once for all sequences with equally many new tokens (so
that no padding ever lies between a sequence's tokens, and column distances are true distances for
sliding windows and ALiBi), and writes the new keys and values back.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, DynamicCache

from inference_workers.errors import ModelError
from inference_workers.layers.attention import KeyValues, LayerShape
from inference_workers.layers.batch import Batch, Segment
from inference_workers.layers.linear import Matrix, Packed, greedy
from inference_workers.layers.masks import Masks, forbid
from inference_workers.models.base import ModelShape


class Generic:
    """One transformers module behind the engine's interface."""

    def __init__(
        self,
        config: Any,
        tensors: Mapping[str, Matrix],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._module = _module(config, tensors, dtype, device)
        accepted = inspect.signature(self._module.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._keeps_last = "logits_to_keep" in accepted
        layers = self._probe(config, device)
        text = config.get_text_config()
        length: int = getattr(text, "max_position_embeddings", 0) or getattr(
            text, "seq_length", 2048
        )
        self.shape = ModelShape(
            vocabulary=int(self._module.get_output_embeddings().weight.shape[0]),
            context_length=length,
            layers=layers,
            windows=(),
            dtype=dtype,
            device=device,
            bytes=sum(p.nbytes for p in self._module.parameters()),
        )

    def _probe(self, config: Any, device: torch.device) -> tuple[LayerShape, ...]:
        """What the module keeps for a token, seen by running one."""
        cache = DynamicCache()
        try:
            ids = torch.zeros((1, 1), dtype=torch.int64, device=device)
            with torch.inference_mode():
                self._module(input_ids=ids, past_key_values=cache, use_cache=True)
            layers: list[Any] = cache.layers
            kept: list[tuple[Tensor, Tensor]] = [(x.keys, x.values) for x in layers]
            shapes = tuple(LayerShape(k.shape[1], k.shape[3], v.shape[3]) for k, v in kept)
            if not shapes or any(k.shape[2] != 1 or k.shape[1] != v.shape[1] for k, v in kept):
                raise ValueError("its cache is not one of keys and values")
        except Exception as error:
            raise ModelError(
                f"Models of type {config.model_type!r} can't be served yet: a token could not be "
                f"run with a key-value cache ({error}). Choose a decoder-only transformer."
            ) from error
        return shapes

    def forward(self, batch: Batch, stores: Sequence[KeyValues]) -> Tensor:
        """Logits of the wanted rows."""
        members = [segment for group in batch.groups for segment in group.members]
        states: list[Tensor] = []
        place: dict[int, int] = {}
        row = kept = 0
        for length, group in groupby(members, key=lambda segment: len(segment.tokens)):
            segments = list(group)
            last = all(set(segment.wanted) <= {length - 1} for segment in segments)
            keep = 1 if last and self._keeps_last else length
            rows = slice(row, row + length * len(segments))
            states.append(self._run(batch, segments, rows, stores, keep))
            for segment in segments:
                place[id(segment)] = kept - (length - keep)
                row, kept = row + length, kept + keep
        wanted = [place[id(s)] + offset for s in batch.segments for offset in s.wanted]
        return torch.cat(states)[torch.tensor(wanted, dtype=torch.int64)]

    def _run(
        self,
        batch: Batch,
        segments: list[Segment],
        rows: slice,
        stores: Sequence[KeyValues],
        keep: int,
    ) -> Tensor:
        """One call for segments of equal length; logits of each one's last ``keep`` rows."""
        length = len(segments[0].tokens)
        past = max(segment.start for segment in segments)
        slots, mask = _past(segments, past, batch.block_size)
        arguments: dict[str, Any] = {
            "input_ids": batch.tokens[rows].view(-1, length),
            "attention_mask": torch.from_numpy(mask).to(batch.tokens.device),
            "past_key_values": _gathered(stores, torch.from_numpy(slots).to(batch.tokens.device)),
            "use_cache": True,
        }
        if self._takes_positions:
            arguments["position_ids"] = batch.positions[rows].view(-1, length)
        if self._keeps_last:
            arguments["logits_to_keep"] = keep
        out = self._module(**arguments)
        for store, layer in zip(stores, arguments["past_key_values"].layers, strict=True):
            new = (layer.keys[:, :, -length:], layer.values[:, :, -length:])
            store.write(batch.slots[rows], *(t.transpose(1, 2).flatten(0, 1) for t in new))
        logits: Tensor = out.logits
        return logits.flatten(0, 1)

    def logits(self, states: Tensor) -> Tensor:
        return states

    def greedy(self, states: Tensor, masks: Masks | None = None) -> tuple[Tensor, Tensor]:
        if masks is not None:
            states = states.clone()
            forbid(states, masks)
        return greedy(states)


def _past(
    segments: Sequence[Segment], longest: int, block_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Slots of each sequence's past, left-padded with slot 0, and the mask of past and new."""
    slots = np.zeros((len(segments), longest), np.int64)
    mask = np.ones((len(segments), longest + len(segments[0].tokens)), np.int64)
    for row, segment in enumerate(segments):
        pad = longest - segment.start
        positions = np.arange(segment.start)
        table = np.asarray(segment.blocks, np.int64)
        slots[row, pad:] = table[positions // block_size] * block_size + positions % block_size
        mask[row, :pad] = 0
    return slots, mask


def _gathered(stores: Sequence[KeyValues], slots: Tensor) -> DynamicCache:
    if not slots.shape[1]:
        return DynamicCache()
    rows = slots.reshape(-1)

    def past(store: Tensor) -> Tensor:
        flat = store.flatten(0, 1).index_select(0, rows)
        return flat.view(*slots.shape, *flat.shape[1:]).transpose(1, 2)

    return DynamicCache([(past(store.keys), past(store.values)) for store in stores])


def _module(
    config: Any, tensors: Mapping[str, Matrix], dtype: torch.dtype, device: torch.device
) -> Any:
    """transformers' module with the weights, checked to be complete."""
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if kind is None:
        raise ModelError(
            f"Models of type {config.model_type!r} can't generate text here: transformers knows no "
            "causal language model for it. Choose another model."
        )
    # Its load report and progress bar would go to the worker's log; what is wrong is raised below.
    log: Any = transformers.logging
    verbosity = log.get_verbosity()
    log.set_verbosity(logging.CRITICAL)
    log.disable_progress_bar()
    try:
        module, report = kind.from_pretrained(
            None,
            config=config,
            state_dict={
                name: tensor.dense(dtype, device) if isinstance(tensor, Packed) else tensor
                for name, tensor in tensors.items()
            },
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:
        raise ModelError(
            f"transformers could not load these weights as {kind.__name__}: {error}. "
            "Prepare the model again from its source."
        ) from error
    finally:
        log.set_verbosity(verbosity)
        log.enable_progress_bar()
    wrong = [*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"])]
    if wrong:
        raise ModelError(
            f"The weights don't fit {kind.__name__}: {len(wrong)} tensors are missing or have "
            f"another shape, the first is {sorted(wrong)[0]!r}. Prepare the model again."
        )
    return module.to(device).eval().requires_grad_(False)
