"""Which block belongs to whom. No torch: the tensors are the runner's.

Blocks are counted, not owned: a block whose content is known by its hash may serve several requests
and outlives the last of them until its place is needed (vLLM's automatic prefix caching). Pinned
blocks, those of an app's own instructions, keep their place: a part of all blocks at the most, and
only until a request that runs alone would not fit beside them. Block 0 is never given out: it is
what padding points to.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from inference_workers.engine.request import Request

PINNED_SHARE = 4
"""Of so many blocks one may lie there pinned while nobody uses it."""


class BlockCache:
    """Accounting of ``blocks`` blocks of ``block_size`` tokens, numbered from 1.

    ``hits`` of ``lookups`` prompt tokens were found.
    """

    def __init__(
        self, blocks: int, block_size: int, *, digest: str = "", reuse: bool = True
    ) -> None:
        self.blocks = blocks
        self.block_size = block_size
        self.reuse = reuse
        self.hits = 0
        self.lookups = 0
        self._root = hashlib.sha256(digest.encode()).digest()
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, blocks + 1))
        self._pins: set[int] = set()
        self._pinned: OrderedDict[int, None] = OrderedDict()
        self._users: dict[int, int] = {}
        self._hash_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}
        self._fresh: list[int] = []

    @property
    def free(self) -> int:
        """Blocks that can be given out now: remembered ones too, pinned ones not."""
        return len(self._free)

    @property
    def used(self) -> int:
        return len(self._users)

    @property
    def pinned(self) -> int:
        """Pinned blocks that nobody uses now."""
        return len(self._pinned)

    def needed(self, tokens: int) -> int:
        """Blocks that hold ``tokens`` tokens."""
        return -(-tokens // self.block_size)

    def grow(self, request: Request, tokens: int) -> bool:
        """Give ``request`` blocks for its first ``tokens`` tokens; ``False``: there are too few."""
        missing = self.needed(tokens) - len(request.blocks)
        if missing > len(self._free):
            return False
        for _ in range(missing):
            block, _ = self._free.popitem(last=False)
            self._forget(block)
            self._users[block] = 1
            self._fresh.append(block)
            request.blocks.append(block)
        return True

    def release(self, request: Request) -> None:
        """Take all blocks back; those with a hash are remembered, last ones evicted first."""
        for block in reversed(request.blocks):
            self._users[block] -= 1
            if not self._users[block]:
                del self._users[block]
                self._leave(block)
        request.blocks.clear()
        request.computed = 0

    def unpin(self) -> bool:
        """Let all pinned blocks that nobody uses be given out; ``False``: there are none."""
        found = bool(self._pinned)
        while self._pinned:
            self._unpin_oldest()
        return found

    def take_fresh(self) -> list[int]:
        """Blocks given out since the last call that are still in use: to be cleared before use."""
        fresh, self._fresh = self._fresh, []
        return [block for block in dict.fromkeys(fresh) if block in self._users]

    def reusable(self, request: Request) -> list[int]:
        """Known blocks with the request's first tokens. One token at least is left to compute."""
        if not self.reuse or request.unscored:
            return []
        found: list[int] = []
        for hash_ in self._hashes(request, (len(request.tokens) - 1) // self.block_size):
            block = self._block_of.get(hash_)
            if block is None:
                break
            found.append(block)
        return found

    def adopt(self, request: Request, blocks: Sequence[int]) -> None:
        """Start a request that has no blocks on known ones."""
        for index, block in enumerate(blocks):
            self._free.pop(block, None)
            self._pinned.pop(block, None)
            self._pin(request, index, block)
            self._users[block] = self._users.get(block, 0) + 1
        request.blocks = list(blocks)
        request.computed = request.reused = len(blocks) * self.block_size

    def count(self, request: Request) -> None:
        """Count an admitted request's prompt tokens, and those that were found."""
        self.lookups += request.prompt
        self.hits += min(request.computed, request.prompt)

    def discard(self, request: Request) -> None:
        """Release, and forget what the blocks hold: the request went wrong, they may be spoilt."""
        for block in request.blocks:
            self._forget(block)
        self.release(request)

    def remember(self, request: Request, before: int) -> None:
        """Make blocks known that became full when ``computed`` rose from ``before``."""
        if not self.reuse:
            return
        full = request.computed // self.block_size
        first = before // self.block_size
        if first == full:
            return
        hashes = self._hashes(request, full)
        for index in range(first, full):
            block, hash_ = request.blocks[index], hashes[index]
            if hash_ not in self._block_of and block not in self._hash_of:
                self._block_of[hash_] = block
                self._hash_of[block] = hash_
                self._pin(request, index, block)

    def check(self, requests: Iterable[Request]) -> None:
        """Raise ``AssertionError`` unless every block is accounted for; for tests."""
        users: dict[int, int] = {}
        for request in requests:
            assert len(request.blocks) >= self.needed(request.computed), "computed without a block"
            assert len(set(request.blocks)) == len(request.blocks), "a block twice in one request"
            for block in request.blocks:
                users[block] = users.get(block, 0) + 1
        assert users == self._users, "users are miscounted"
        idle = {*self._free, *self._pinned}
        assert not users.keys() & idle, "a block both free and used"
        assert len(idle) == len(self._free) + len(self._pinned), "a block both free and pinned"
        assert len(users) + len(idle) == self.blocks, "a block is lost"
        assert self._pinned.keys() <= self._pins <= self._hash_of.keys(), "an unknown block pinned"
        assert len(self._pinned) <= self.blocks // PINNED_SHARE, "too much is pinned"
        assert {b: h for h, b in self._block_of.items()} == self._hash_of, "hashes disagree"

    def _leave(self, block: int) -> None:
        """Put a block where it belongs now that nobody uses it."""
        if block in self._pins:
            self._pinned[block] = None
            while len(self._pinned) > self.blocks // PINNED_SHARE:
                self._unpin_oldest()
            return
        self._free[block] = None
        if block not in self._hash_of:
            self._free.move_to_end(block, last=False)

    def _pin(self, request: Request, index: int, block: int) -> None:
        if (index + 1) * self.block_size <= request.pinned:
            self._pins.add(block)

    def _unpin_oldest(self) -> None:
        block, _ = self._pinned.popitem(last=False)
        self._pins.discard(block)
        self._free[block] = None

    def _forget(self, block: int) -> None:
        self._pins.discard(block)
        hash_ = self._hash_of.pop(block, None)
        if hash_ is not None:
            del self._block_of[hash_]

    def _hashes(self, request: Request, blocks: int) -> list[bytes]:
        """Hashes of the first ``blocks`` blocks: of weights, salts and all tokens up to there."""
        size = self.block_size
        while len(request.hashes) < blocks:
            start = len(request.hashes) * size
            tokens = request.tokens[start : start + size]
            parent = request.hashes[-1] if request.hashes else self._root
            digest = hashlib.sha256(parent)
            digest.update(array("q", tokens).tobytes())
            for salt in _salts(request, start, start + size):
                digest.update(len(salt).to_bytes(4, "big"))
                digest.update(salt.encode())
            request.hashes.append(digest.digest())
        return request.hashes[:blocks]


def _salts(request: Request, start: int, end: int) -> list[str]:
    """The salts of the parts that tokens ``start`` to ``end`` lie in."""
    found: list[str] = []
    low = 0
    for salt, length in request.salts:
        if low < end and low + length > start:
            found.append(salt)
        low += length
    if low < end:
        found.append(request.own)
    return found
