"""Whole texts for an encoder as tensors: rows without padding, attention among like lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

ALIKE = 0.75
"""A text joins a group whose longest one is at most so much longer: attention is a tenth of the
work of a text of 200 tokens, so that a little padding costs less than a further call."""


@dataclass(frozen=True, slots=True)
class Alike:
    """``count`` texts that attend together, padded to ``longest`` tokens. ``gather`` pads their
    rows, ``scatter`` picks the real ones, ``mask`` hides padded keys, ``(count, 1, 1, longest)``;
    all are ``None`` where nothing is padded."""

    rows: slice
    count: int
    longest: int
    gather: Tensor | None = None
    scatter: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Texts:
    """``tokens``, ``positions`` and ``owners`` (the text) are ``(rows,)``, the longest text first;
    ``lengths`` and ``firsts`` (its first row) ``(texts,)``. ``places[i]`` is where the text that
    was given as number ``i`` went."""

    tokens: Tensor
    positions: Tensor
    owners: Tensor
    lengths: Tensor
    firsts: Tensor
    places: Tensor
    groups: tuple[Alike, ...]


def lay(texts: Sequence[Sequence[int]], device: torch.device) -> Texts:
    """Lay out texts of at least one token each."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    counts = [len(texts[i]) for i in order]
    lengths = torch.tensor(counts)
    firsts = lengths.cumsum(0) - lengths
    owners = torch.repeat_interleave(torch.arange(len(order)), lengths)
    positions = torch.arange(len(owners)) - firsts[owners]
    places = torch.empty(len(order), dtype=torch.int64)
    places[torch.tensor(order)] = torch.arange(len(order))
    tokens = torch.tensor([token for i in order for token in texts[i]])
    return Texts(
        tokens=tokens.to(device),
        positions=positions.to(device),
        owners=owners.to(device),
        lengths=lengths.to(device),
        firsts=firsts.to(device),
        places=places.to(device),
        groups=_groups(counts, device),
    )


def _groups(counts: Sequence[int], device: torch.device) -> tuple[Alike, ...]:
    """``counts`` fall; a group ends where the next text is too short for it."""
    groups, begin, row = [], 0, 0
    for end in range(1, len(counts) + 1):
        if end < len(counts) and counts[end] >= ALIKE * counts[begin]:
            continue
        group = _group(counts[begin:end], row, device)
        groups.append(group)
        begin, row = end, group.rows.stop
    return tuple(groups)


def _group(counts: Sequence[int], row: int, device: torch.device) -> Alike:
    rows, longest = slice(row, row + sum(counts)), counts[0]
    if counts[-1] == longest:
        return Alike(rows, len(counts), longest)
    lengths = torch.tensor(counts)
    firsts = lengths.cumsum(0) - lengths
    columns = torch.arange(longest)
    real = columns < lengths[:, None]
    # A padding row repeats its text's last one: harmless, and never seen.
    gather = firsts[:, None] + torch.minimum(columns, lengths[:, None] - 1)
    return Alike(
        rows,
        len(counts),
        longest,
        gather.view(-1).to(device),
        real.view(-1).nonzero()[:, 0].to(device),
        real[:, None, None, :].to(device),
    )


def attend_whole(qkv: Tensor, texts: Texts, heads: int) -> Tensor:
    """Every token of a text sees all of it. ``qkv`` is ``(rows, 3 * features)``, queries, keys and
    values side by side; the result ``(rows, features)``."""
    parts = []
    for group in texts.groups:
        rows = qkv[group.rows]
        if group.gather is not None:
            rows = rows.index_select(0, group.gather)
        split = rows.view(group.count, group.longest, 3, heads, -1).permute(2, 0, 3, 1, 4)
        queries, keys, values = split.unbind(0)
        seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=group.mask)
        out = seen.transpose(1, 2).reshape(group.count * group.longest, -1)
        parts.append(out if group.scatter is None else out.index_select(0, group.scatter))
    return parts[0] if len(parts) == 1 else torch.cat(parts)
