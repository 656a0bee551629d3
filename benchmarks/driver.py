"""One side of the comparison, in a process of its own: commands in, seconds out.

    PEER/bin/python benchmarks/driver.py PEER MODEL [--dtype bfloat16]

Runs in the Python of the peer's own environment, so it needs nothing but the standard library until
a peer is chosen. Each line of its input is a JSON object ``{"do": NAME, ...}`` and gets one line of
output, ``{"value": ...}`` or ``{"error": TEXT}``; the first line, ``{"ready": {...}}``, comes when
the model is loaded. ``decode`` is how long ``tokens`` more tokens of every prompt take after each
has its first one; ``prefill`` how long a prompt takes to its first token. Greedy, and nothing ends
early. Whatever libraries print goes to standard error.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Prompts = list[list[int]]
TRIES = 3


class Side:
    """A peer. ``generate`` makes exactly ``tokens`` tokens for each prompt (lists of token ids);
    ``decode`` may be replaced where a peer can be timed between its tokens."""

    version = ""
    weights = "bfloat16"

    def generate(self, prompts: Prompts, tokens: int) -> None:
        raise NotImplementedError

    def decode(self, prompts: Prompts, tokens: int) -> float:
        """Seconds of ``tokens`` tokens for every prompt after its first."""
        for _ in range(TRIES):
            first = _seconds(self.generate, prompts, 1)
            rest = _seconds(self.generate, prompts, tokens + 1) - first
            if rest > 0:
                return rest
        raise RuntimeError("one token took longer than many: the machine is too busy to time it")

    def prefill(self, prompt: list[int]) -> float:
        """Seconds to the first token."""
        return _seconds(self.generate, [prompt], 1)


def _seconds(function: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


class Echo(Side):
    """No model: a step takes ``MODEL`` seconds. For trying the way of the commands."""

    weights = "none"

    def __init__(self, model: str, dtype: str, most: int) -> None:
        self.step = float(model)

    def generate(self, prompts: Prompts, tokens: int) -> None:
        print("a library's greeting")
        time.sleep(self.step * tokens)


class Transformers(Side):
    """``generate`` on a batch. The prompts have one length, so nothing is padded: its best case."""

    def __init__(self, model: str, dtype: str, most: int) -> None:
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        self.torch, self.version, self.weights = torch, transformers.__version__, dtype
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            model, dtype=getattr(torch, dtype)
        )
        self.model.generation_config.eos_token_id = None
        self.model.generation_config.pad_token_id = 0
        self.times: list[float] = []

    def _clock(self, ids: Any, scores: Any) -> Any:
        self.times.append(time.perf_counter())
        return scores

    def generate(self, prompts: Prompts, tokens: int) -> None:
        self.times = []
        ids = self.torch.tensor(prompts)
        with self.torch.inference_mode():
            self.model.generate(
                ids,
                attention_mask=self.torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=tokens,
                logits_processor=[self._clock],
            )
        self.times.append(time.perf_counter())

    def decode(self, prompts: Prompts, tokens: int) -> float:
        self.generate(prompts, tokens + 1)
        return self.times[-1] - self.times[0]  # from the prompt's own logits to the end


class TransformersContinuous(Side):
    """Transformers' own continuous batching, by one manager that stays: what ``generate_batch``
    would set up for every call. Left to itself it takes most of the memory for its cache, and
    minutes to fill the masks that belong to it, so the cache is made for the largest batch here.
    Nothing is padded as long as nothing is compiled."""

    PAGE = 32  # tokens; a sequence of a decoding row needs two
    ROOM = 1024  # tokens a step: the long prompt fits in one

    def __init__(self, model: str, dtype: str, most: int) -> None:
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        self.version, self.weights = transformers.__version__, dtype
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            model, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
        self.manager = loaded.init_continuous_batching(
            generation_config=transformers.GenerationConfig(
                do_sample=False, eos_token_id=-1, pad_token_id=0
            ),
            continuous_batching_config=transformers.ContinuousBatchingConfig(
                page_size=self.PAGE,
                num_blocks=max(4 * most, 2 * self.ROOM // self.PAGE),
                max_batch_tokens=self.ROOM,
                allow_block_sharing=False,
            ),
        )
        self.manager.start()

    def _run(self, prompts: Prompts, tokens: int) -> list[list[float]]:
        """When each token of each sequence was there."""
        asked = self.manager.add_requests(
            inputs=prompts, max_new_tokens=tokens, record_timestamps=True
        )
        times: list[list[float]] = []
        while len(times) < len(asked):
            output = self.manager.get_result(timeout=1)
            if output is None and not self.manager.is_running():
                raise RuntimeError("its thread has ended")
            if output is not None and output.is_finished():
                if len(output.generated_tokens) != tokens:
                    raise RuntimeError(output.error or "it ended early")
                times.append(output.timestamps)
        return times

    def generate(self, prompts: Prompts, tokens: int) -> None:
        self._run(prompts, tokens)

    def decode(self, prompts: Prompts, tokens: int) -> float:
        times = self._run(prompts, tokens + 1)
        return max(own[-1] for own in times) - max(own[0] for own in times)


class Vllm(Side):
    """vLLM's engine in its CPU build, without reuse of prefixes between rounds. It runs in this
    process and on every core: its scheduler's own process would spin on one and keep it from the
    model, which is half of a small machine."""

    def __init__(self, model: str, dtype: str, most: int) -> None:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import vllm

        self.vllm, self.version, self.weights = vllm, vllm.__version__, dtype
        self.model = vllm.LLM(
            model, dtype=dtype, max_model_len=2048, max_num_seqs=most, enforce_eager=True,
            enable_prefix_caching=False, skip_tokenizer_init=True, disable_log_stats=False,
        )  # fmt: skip

    def _run(self, prompts: Prompts, tokens: int) -> list[Any]:
        """What it noted of each request."""
        sampling = self.vllm.SamplingParams(
            temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False
        )
        given = [{"prompt_token_ids": ids} for ids in prompts]
        return [out.metrics for out in self.model.generate(given, sampling, use_tqdm=False)]

    def generate(self, prompts: Prompts, tokens: int) -> None:
        self._run(prompts, tokens)

    def decode(self, prompts: Prompts, tokens: int) -> float:
        noted = self._run(prompts, tokens + 1)
        began = max(request.first_token_ts for request in noted)
        return float(max(request.last_token_ts for request in noted) - began)


class LlamaCpp(Side):
    """llama.cpp's library, called once a step for the whole batch, with NumPy's ``argmax``."""

    ROOM = 1024

    def __init__(self, model: str, dtype: str, most: int) -> None:
        import llama_cpp
        import numpy

        self.lib, self.numpy = llama_cpp, numpy
        self.version = llama_cpp.__version__
        self._log = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            model.encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise RuntimeError(f"llama.cpp can't load {model}")
        self.weights = self._described()
        self.size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(self.ROOM, 0, 1)
        self.contexts: dict[tuple[int, int, bool], Any] = {}
        self.unified = {1: True}

    def _described(self) -> str:
        text = ctypes.create_string_buffer(256)
        self.lib.llama_model_desc(self.model, text, 256)
        return text.value.decode().replace("Medium", "M").replace(" - ", "_")

    def _context(self, sequences: int, room: int, unified: bool) -> Any:
        """One of so many sequences with ``room`` tokens each; the last ones are kept."""
        key = (sequences, room, unified)
        if key in self.contexts:
            return self.contexts[key]
        for old in self.contexts.values() if len(self.contexts) > 3 else ():
            self.lib.llama_free(old)
        if len(self.contexts) > 3:
            self.contexts = {}
        asked = self.lib.llama_context_default_params()
        asked.n_ctx, asked.n_seq_max = sequences * room, sequences
        asked.n_batch, asked.n_ubatch = self.ROOM, 512
        asked.n_threads = asked.n_threads_batch = len(os.sched_getaffinity(0))
        asked.kv_unified = unified
        made = self.contexts[key] = self.lib.llama_init_from_model(self.model, asked)
        if not made:
            raise RuntimeError(f"llama.cpp has no context for {sequences} sequences of {room}")
        return made

    def _compute(self, context: Any, items: list[tuple[int, int, int, bool]]) -> list[int]:
        """Run ``(token, position, sequence, wanted)``; the best token of each wanted one."""
        found: list[int] = []
        for start in range(0, len(items), self.ROOM):
            part = items[start : start + self.ROOM]
            self.batch.n_tokens = len(part)
            for i, (token, position, sequence, wanted) in enumerate(part):
                self.batch.token[i], self.batch.pos[i] = token, position
                self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
                self.batch.logits[i] = wanted
            if self.lib.llama_decode(context, self.batch) != 0:
                raise RuntimeError("llama_decode failed")
            found += [self._best(context, i) for i, item in enumerate(part) if item[3]]
        return found

    def _best(self, context: Any, row: int) -> int:
        return int(self.numpy.argmax(self._logits(context, row)))

    def _logits(self, context: Any, row: int) -> Any:
        logits = self.lib.llama_get_logits_ith(context, row)
        return self.numpy.ctypeslib.as_array(logits, shape=(self.size,))

    def likelihood(self, prompt: list[int]) -> float:
        """The log-likelihood of a prompt's tokens but the first, of at most ``ROOM``."""
        context = self._context(1, self.ROOM, True)
        self.lib.llama_memory_clear(self.lib.llama_get_memory(context), False)
        last = len(prompt) - 1
        self._compute(context, [(token, at, 0, at < last) for at, token in enumerate(prompt)])
        total = 0.0
        for at, following in enumerate(prompt[1:]):
            logits = self._logits(context, at)
            peak = logits.max()
            total += logits[following] - peak - self.numpy.log(self.numpy.exp(logits - peak).sum())
        return float(total)

    def _run(self, prompts: Prompts, tokens: int, unified: bool) -> tuple[float, float]:
        """When the prompts had their first tokens, and when everything was done."""
        room = -(-(max(map(len, prompts)) + tokens) // 128) * 128
        context = self._context(len(prompts), room, unified)
        self.lib.llama_memory_clear(self.lib.llama_get_memory(context), False)
        following = self._compute(
            context,
            [
                (token, position, sequence, position == len(prompt) - 1)
                for sequence, prompt in enumerate(prompts)
                for position, token in enumerate(prompt)
            ],
        )
        first = time.perf_counter()
        for step in range(tokens):
            items = [(t, len(prompts[s]) + step, s, True) for s, t in enumerate(following)]
            following = self._compute(context, items)
        return first, time.perf_counter()

    def generate(self, prompts: Prompts, tokens: int) -> None:
        self._run(prompts, tokens - 1, True)

    def decode(self, prompts: Prompts, tokens: int) -> float:
        """With one cache for all sequences or one each: what was faster the first time."""
        count = len(prompts)
        if count not in self.unified:
            taken = {way: self._timed(prompts, tokens, way) for way in (True, False)}
            self.unified[count] = taken[True] <= taken[False]
        return self._timed(prompts, tokens, self.unified[count])

    def _timed(self, prompts: Prompts, tokens: int, unified: bool) -> float:
        first, end = self._run(prompts, tokens, unified)
        return end - first


PEERS = {
    "transformers": Transformers,
    "transformers-cb": TransformersContinuous,
    "vllm": Vllm,
    "llamacpp": LlamaCpp,
    "echo": Echo,
}


def serve(make: Callable[[], Any]) -> int:
    """Load a side by ``make`` and answer commands until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    try:
        side = make()
    except BaseException as error:
        say({"error": _named(error)})
        return 1
    say({"ready": {"version": side.version, "weights": side.weights, "pid": os.getpid()}})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            value = getattr(side, asked.pop("do"))(**asked)
        except Exception as error:
            say({"error": _named(error)})
        else:
            say({"value": value})
    return 0


def _named(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}" if text else type(error).__name__


def main() -> int:
    # Where the script itself lies nothing may stand in for a library.
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    parser = argparse.ArgumentParser(prog="driver.py")
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("model", help="a GGUF file or a folder, as the peer reads it")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--most", type=int, default=64, help="the largest batch")
    given = parser.parse_args()
    return serve(lambda: PEERS[given.peer](given.model, given.dtype, given.most))


if __name__ == "__main__":
    sys.exit(main())
