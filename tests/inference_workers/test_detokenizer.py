"""Streamed text equals decoding everything at once, in whole characters, without stop strings."""

from __future__ import annotations

import functools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from inference_workers.engine.detokenizer import REPLACEMENT, Detokenizer
from inference_workers.vocabulary import _byte_of

CORPUS = "the cat sat on the mat 你好世界 caf\u00e9 \U0001f600\U0001f44d na\u00efve"


@functools.cache
def byte_level() -> Tokenizer:
    names = sorted(_byte_of(), key=lambda name: _byte_of()[name])
    vocabulary = {name: i for i, name in enumerate(names)}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("ä", "½"), ("ð", "Ł"), ("ðŁ", "ĺ")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<bos>", special=True)])
    tokenizer.add_tokens([AddedToken("plain added", special=False)])
    return tokenizer


@functools.cache
def byte_fallback(strip: int = 0) -> Tokenizer:
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    names += ["▁", *"thecasonm", "th", "the", "▁the", "cat", "▁cat", "你"]
    vocabulary = {name: i for i, name in enumerate(names)}
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("c", "a"), ("ca", "t"), ("▁", "cat")]
    vocabulary.update({"ca": len(vocabulary)})
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if strip:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        parts.append(decoders.Strip(" ", strip, 0))
    tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.add_special_tokens([AddedToken("<bos>", special=True)])
    return tokenizer


@functools.cache
def metaspace() -> Tokenizer:
    names = ["<unk>", *sorted(set(CORPUS.replace(" ", "▁"))), "▁the", "▁cat"]
    tokenizer = Tokenizer(models.Unigram([(name, -float(i)) for i, name in enumerate(names)], 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


@functools.cache
def word_piece() -> Tokenizer:
    names = ["[UNK]", "the", "cat", "sat", "##s", "##ting", ",", ".", "n", "'", "t"]
    tokenizer = Tokenizer(
        models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


TOKENIZERS = {
    "byte level": byte_level,
    "byte fallback": byte_fallback,
    "byte fallback, stripped": functools.partial(byte_fallback, 1),
}


def stream(tokenizer: Tokenizer, prompt: list[int], ids: list[int], *stop: str) -> list[str]:
    detokenizer = Detokenizer(tokenizer, prompt, stop)
    pieces = [detokenizer.push(i) for i in ids]
    return [*pieces, detokenizer.flush()]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(max_size=30), cut=st.integers(0, 40))
@settings(max_examples=150, deadline=None)
def test_any_text_streams_as_it_decodes_from_any_cut(name: str, text: str, cut: int) -> None:
    tokenizer = TOKENIZERS[name]()
    ids = [tokenizer.token_to_id("<bos>"), *tokenizer.encode(text).ids]
    prompt = "".join(stream(tokenizer, [], ids[:cut])[:-1])
    assert prompt + "".join(stream(tokenizer, ids[:cut], ids[cut:])) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters=REPLACEMENT)))
@settings(max_examples=100, deadline=None)
def test_no_piece_ends_inside_a_character(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]()
    pieces = stream(tokenizer, [], tokenizer.encode(text).ids)
    assert not any(REPLACEMENT in piece for piece in pieces)
    assert "".join(pieces) == text


@given(ids=st.lists(st.integers(0, 263), max_size=40), cut=st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_invalid_bytes_become_what_decoding_makes_of_them(ids: list[int], cut: int) -> None:
    tokenizer = byte_level()
    text = "".join(stream(tokenizer, [], ids))
    assert text == tokenizer.decode(ids)
    detokenizer = Detokenizer(tokenizer, ids[:cut])
    rest = "".join([*(detokenizer.push(i) for i in ids[cut:]), detokenizer.flush()])
    assert text.endswith(rest)


@given(ids=st.lists(st.integers(1, 30), max_size=30), cut=st.integers(0, 30))
@settings(max_examples=150, deadline=None)
def test_metaspace_keeps_the_space_before_each_word_but_the_texts_first(
    ids: list[int], cut: int
) -> None:
    tokenizer = metaspace()
    ids = [i for i in ids if i < tokenizer.get_vocab_size()]
    text = tokenizer.decode(ids[:cut]) + "".join(stream(tokenizer, ids[:cut], ids[cut:]))
    assert text == tokenizer.decode(ids)


@given(ids=st.lists(st.integers(1, 10), max_size=30))
@settings(max_examples=150, deadline=None)
def test_a_decoder_that_looks_at_neighbours_streams_as_it_decodes(ids: list[int]) -> None:
    tokenizer = word_piece()
    assert "".join(stream(tokenizer, [], ids)) == tokenizer.decode(ids)


@given(
    text=st.text("ab\u00e9", max_size=30),
    stops=st.lists(st.text("ab\u00e9", min_size=1, max_size=4), min_size=1, max_size=3),
)
@settings(max_examples=400, deadline=None)
def test_text_ends_before_the_stop_string_met_first(text: str, stops: list[str]) -> None:
    tokenizer = byte_level()
    detokenizer = Detokenizer(tokenizer, [], stops)
    given_out, met = "", None
    for i in tokenizer.encode(text).ids:
        given_out += detokenizer.push(i)
        assert not any(stop in given_out for stop in stops)
    for end in range(1, len(text) + 1):
        fits = [stop for stop in stops if text[:end].endswith(stop)]
        if fits:
            met = text[: end - max(map(len, fits))]
            break
    assert detokenizer.stopped == (met is not None)
    given_out += detokenizer.flush()
    assert given_out == (text if met is None else met)


def test_a_possible_stop_is_held_back_and_released_when_it_fails() -> None:
    tokenizer = byte_level()
    detokenizer = Detokenizer(tokenizer, [], ["\nUser:"])
    pieces = [detokenizer.push(i) for i in tokenizer.encode("a\nUseful").ids]
    assert pieces == ["a", "", "", "", "", "\nUsef", "u", "l"]


def test_special_tokens_and_unknown_ids_have_no_text() -> None:
    tokenizer = byte_level()
    special = tokenizer.token_to_id("<bos>")
    ids = tokenizer.encode("caf\u00e9").ids
    assert "".join(stream(tokenizer, [special], [*ids[:-1], special, 9999, ids[-1]])) == "caf\u00e9"


def test_an_added_token_that_is_not_special_is_text() -> None:
    tokenizer = byte_level()
    assert stream(tokenizer, [], [tokenizer.token_to_id("plain added")]) == ["plain added", ""]


def test_a_token_costs_the_same_late_in_a_long_text() -> None:
    tokenizer = byte_fallback()
    ids = tokenizer.encode("the cat " * 50).ids
    detokenizer = Detokenizer(tokenizer, [], ["never met"])

    def seconds() -> float:
        start = time.perf_counter()
        for i in ids:
            detokenizer.push(i)
        return time.perf_counter() - start

    early = min(seconds() for _ in range(5))
    for _ in range(60):
        seconds()
    assert min(seconds() for _ in range(5)) < 4 * early
