"""Guided output: which tokens may come next, so that the text matches its guide.

A guide is compiled on a thread of its own, within llguidance's limits and ours, and so is what an
earlier epoch logged: no step waits for either. Afterwards a token costs some 60 us a guided choice.
Where a choice stands is a function of its guide and its tokens, so a resumed job goes on exactly.

Tokens count as the bytes that ``detokenizer`` makes of them: what is matched is the text that the
reader gets. Special tokens never match; the model's end tokens are allowed where the text may end.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance._tokenizer import TokenizerWrapper
from numpy.typing import NDArray
from tokenizers import Tokenizer

from inference_workers.contract import Guide
from inference_workers.errors import RequestError
from inference_workers.vocabulary import Table, Vocabulary

Mask = NDArray[np.int32]
"""Bit ``t % 32`` of word ``t // 32`` says whether token ``t`` may come next."""

REASON = 300
"""Characters of llguidance's own words in a message."""
COMPILE_SECONDS = 10.0
"""A compilation that takes longer is given up. Within ``LIMITS`` the slowest known takes 1 s."""
LIMITS = LLParserLimits(
    step_max_items=5_000,  # of an ambiguous grammar about 100 a millisecond
    max_lexer_states=20_000,  # of 1 to 2 kB each
    max_grammar_size=200_000,
    verbose_errors=False,  # or messages would quote the text so far
)
WHITESPACE = r"\x20|\r?\n(\x20{0,40}|\t{0,10})"
"""Between the parts of JSON: enough for the usual layouts, and no small model stays in it for ever.
A schema may choose another by llguidance's own ``x-guidance``."""


class Grammar:
    """Where one choice stands in its guide. After an ``error`` it can't go on.

    ``complete``: nothing may follow but the end. ``ends`` are llguidance's names of the end.
    """

    def __init__(self, matcher: LLMatcher, ends: Sequence[int], width: int) -> None:
        self._matcher = matcher
        self._ends = ends
        self._mask: Mask = np.zeros(width, dtype=np.int32)
        self._accepts = False
        self.complete = False
        self.error: RequestError | None = None

    def copy(self) -> Grammar:
        return Grammar(self._matcher.deep_copy(), self._ends, len(self._mask))

    def take(self, *tokens: int) -> None:
        """Add tokens, none of them an end, and find out what may follow."""
        matcher = self._matcher
        if tokens and not matcher.consume_tokens(list(tokens)):
            self.error = _refusal(matcher.get_error())
            return
        self._accepts = matcher.is_accepting()
        self.complete = matcher.is_stopped()
        if not self.complete:
            matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
            _flip(self._mask, self._ends, on=False)
            self.complete = not self._mask.any()
        if matcher.is_error():
            self.error = _refusal(matcher.get_error())

    def allowed(self, *, ends: Iterable[int] = (), without: Iterable[int] = ()) -> Mask:
        """The tokens that may come next: ``ends`` where the text may end here, and not those
        ``without``, unless nothing else may."""
        mask = self._mask.copy()
        _flip(mask, without, on=False)
        if not mask.any():
            mask[:] = self._mask
        if self._accepts:
            _flip(mask, ends, on=True)
        return mask


class Compiling:
    """A guide on its way: ``poll`` until there are grammars."""

    def __init__(self) -> None:
        self.future: Future[list[Grammar]] = Future()
        self.began: float | None = None

    @property
    def overdue(self) -> bool:
        return self.began is not None and time.monotonic() - self.began > COMPILE_SECONDS

    def poll(self) -> list[Grammar] | None:
        """A grammar for each sequence of tokens that ``Grammars.compile`` was given.

        Raises:
            RequestError: the guide is refused; the message says what to change.
        """
        if self.future.done():
            return self.future.result()
        if self.overdue:
            raise _refusal(f"TooComplex: not compiled within {COMPILE_SECONDS:g} s")
        return None


class Grammars:
    """Compiles guides for one tokenizer. ``ends`` are the tokens that end an answer."""

    def __init__(self, words: Tokenizer | Vocabulary, ends: Iterable[int]) -> None:
        self._vocabulary = Vocabulary.of(words)
        self._ends = tuple(sorted(ends))
        self._tables: LLTokenizer | None = None
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def warm(self) -> None:
        """Build llguidance's tables: once, before the first guide is compiled.

        For 262144 tokens they take a second, in which nothing else of the process runs, and 120 MB.
        """
        with self._lock:
            if self._tables is None and self._vocabulary.table is not None:
                special = self._vocabulary.special
                self._tables = _Tokens(self._vocabulary.table, special, self._ends).tables()

    def compile(self, guide: Guide, taken: Sequence[Sequence[int]]) -> Compiling:
        """Begin to make a grammar for each of ``taken``, the tokens that a choice has so far.

        Raises:
            RequestError: this model's text can't be guided.
        """
        if self._vocabulary.table is None:
            raise RequestError(
                "guide: this model's tokenizer doesn't say which bytes a token stands for, so its "
                "text can't be guided. Leave the guide out, or choose another model.",
                code="guide_unsupported",
            )
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        compiling = Compiling()
        self._pool.submit(self._run, compiling, guide, taken)
        return compiling

    def give_up(self) -> None:
        """Leave the thread to what it can't finish; later guides get another one."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None

    def _run(self, compiling: Compiling, guide: Guide, taken: Sequence[Sequence[int]]) -> None:
        try:
            self.warm()
            compiling.began = time.monotonic()
            compiling.future.set_result(self._compiled(guide, taken))
        except RequestError as error:
            compiling.future.set_exception(error)
        except BaseException as error:  # a panic in llguidance is no Exception
            compiling.future.set_exception(_refusal(str(error)))

    def _compiled(self, guide: Guide, taken: Sequence[Sequence[int]]) -> list[Grammar]:
        tables = self._tables
        assert tables is not None
        matcher = LLMatcher(tables, _source(guide), log_level=0, limits=LIMITS)
        first = Grammar(matcher, tables.eos_tokens, -(-tables.vocab_size // 32))
        made = [first, *(first.copy() for _ in taken)]
        for grammar, tokens in zip(made, [(), *taken], strict=True):
            grammar.take(*tokens)
            if grammar.error is not None:
                raise grammar.error
            if grammar.complete:
                raise _refusal("it allows no text, or no more than there is")
        return made[1:]


class _Tokens:
    """A vocabulary as llguidance reads it; the public names are llguidance's."""

    def __init__(self, table: Table, special: frozenset[int], ends: Sequence[int]) -> None:
        size = len(table)
        self._tables: LLTokenizer | None = None
        self._ends = [end for end in ends if end < size]
        self.tokens = [table.bytes_of(token) for token in range(size)]
        ids = {*special, *self._ends}
        if not self._ends:
            # llguidance needs an end: one that the model doesn't have.
            self._ends = [size]
            self.tokens.append(b"<end>")
            ids.add(size)
        self.eos_token_id = self._ends[0]
        self.bos_token_id = None
        self.special_token_ids = sorted(ids)
        self._usual = _usual(self.tokens, ids)

    def tables(self) -> LLTokenizer:
        wrapper = TokenizerWrapper(self)
        self._tables = LLTokenizer(wrapper, n_vocab=len(self.tokens), eos_token=self._ends)
        self.tokens = []  # llguidance has its own copy
        return self._tables

    def __call__(self, text: str | bytes) -> list[int]:
        """How a model would write a text that is certain to come: by the longest tokens. For names
        and signs of JSON the merges of a BPE end with the same ones 24 times of 25, and to know
        them takes the tokenizer, which a worker doesn't read."""
        if self._tables is None:
            return []
        data = text.encode() if isinstance(text, str) else text
        ids = self._tables.greedy_tokenize(data.decode())
        return [self._usual.get(token, token) for token in ids]


def _usual(tokens: Sequence[bytes], special: Collection[int]) -> dict[int, int]:
    """For each byte that has two tokens, its own and that of a character: the character's."""
    last = {d: t for t, d in enumerate(tokens) if len(d) == 1 and t not in special}
    return {t: last[d] for t, d in enumerate(tokens) if last.get(d, t) != t}


def idle(compiling: Iterable[Compiling], seconds: float) -> None:
    """Rest until one of them is done, ``seconds`` at most."""
    wait([each.future for each in compiling], timeout=seconds, return_when="FIRST_COMPLETED")


def _source(guide: Guide) -> str:
    """The guide as llguidance reads it."""
    if guide.kind == "regex":
        return LLMatcher.grammar_from_regex(guide.text)
    if guide.kind == "lark":
        return LLMatcher.grammar_from_lark(guide.text)
    try:
        return LLMatcher.grammar_from_json_schema(guide.text, {"whitespace_pattern": WHITESPACE})
    except ValueError as error:
        raise _refusal(str(error)) from None


_LIMIT = re.compile(
    r"fuel|too (large|many|complex|deeply)|max is|recursion limit|TooComplex|if regex is empty",
    re.IGNORECASE,
)


def _refusal(reason: str) -> RequestError:
    """What llguidance says, in a line, and what to do about it."""
    said = " ".join(reason.removesuffix("<non-verbose/>").split())[:REASON]
    if _LIMIT.search(reason):
        return RequestError(
            f"guide: it is too complex ({said}). Make it smaller: fewer optional properties, "
            "alternatives and counted repetitions, less nesting.",
            code="guide_too_complex",
        )
    if "NoExtension" in reason:
        said = "no text can match it"
    return RequestError(f"guide: it can't be followed ({said}). Correct it.", code="invalid_guide")


def _flip(mask: Mask, tokens: Iterable[int], *, on: bool) -> None:
    words = mask.view(np.uint32)
    for token in tokens:
        word, bit = token >> 5, np.uint32(1 << (token & 31))
        if word < len(words):
            words[word] = words[word] | bit if on else words[word] & ~bit
