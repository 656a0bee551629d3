"""A jinja environment for templates that nobody here wrote: what they may use, and how much.

jinja's ``ImmutableSandboxedEnvironment`` keeps a template from Python's internals; it does not keep
it from ``{% for i in range(10**9) %}`` or from ``'x' * 10**10``. Here every turn of a loop, call,
operation and printed value passes a ``Budget`` that counts characters, steps and processor time.
What could be large in a single step (a product, a width, a join) is measured before it is made.
"""

from __future__ import annotations

import json
import operator
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS as DEFAULT_FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS as DEFAULT_TESTS
from jinja2.utils import Namespace

MAX_STEPS = 1_000_000
MAX_RANGE = 100_000
MAX_BITS = 256
FILTERS = (
    "abs", "batch", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first",
    "float", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min",
    "reject", "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr", "sort",
    "string", "sum", "title", "trim", "unique", "upper",
)  # fmt: skip
TESTS = (
    "boolean", "defined", "divisibleby", "eq", "equalto", "even", "false", "float", "ge", "gt",
    "in", "integer", "iterable", "le", "lower", "lt", "mapping", "ne", "none", "number", "odd",
    "sequence", "string", "true", "undefined", "upper", "==", "!=", "<", ">", "<=", ">=",
)  # fmt: skip
TEXT_METHODS = (
    "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdigit",
    "islower", "isspace", "isupper", "join", "lower", "lstrip", "partition", "removeprefix",
    "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split",
    "splitlines", "startswith", "strip", "swapcase", "title", "upper",
)  # fmt: skip
METHODS: dict[type, Sequence[str]] = {
    str: TEXT_METHODS,
    dict: ("get", "items", "keys", "values"),
    list: ("count", "index"),
    tuple: ("count", "index"),
    LoopContext: ("changed", "cycle"),
}
_DATE_FORMAT = re.compile(r"(?:%[A-Za-z%]|[^%]){0,64}")


class TemplateRefusal(Exception):
    """The template did what it may not, or said itself that it can't go on."""


class Budget:
    """What one rendering may take. ``call_cost`` is charged for each macro call: its fixed text."""

    def __init__(self, *, characters: int, seconds: float, call_cost: int) -> None:
        self.characters = characters
        self.call_cost = call_cost
        self.limit = characters
        self._steps = MAX_STEPS
        self._until = time.thread_time() + seconds

    def take(self, characters: int = 0) -> None:
        """Pay for one step that makes so many characters (or items)."""
        self.characters -= characters
        self._steps -= 1
        if self.characters < 0:
            raise TemplateRefusal(
                f"The model's chat template makes more than {self.limit:,} characters. Shorten the "
                "conversation, or use another version of the model."
            )
        if self._steps < 0 or time.thread_time() > self._until:
            raise TemplateRefusal(
                "The model's chat template takes too long. Use another version of the model."
            )

    def check(self, size: int) -> None:
        """Refuse to make one value of this size, before it is made."""
        if size > self.limit:
            self.take(size)


_current: ContextVar[Budget] = ContextVar("budget")


@contextmanager
def spending(budget: Budget) -> Iterator[None]:
    """Renderings inside pay from ``budget``."""
    token = _current.set(budget)
    try:
        yield
    finally:
        _current.reset(token)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """One template's environment: compile with ``from_string``, render inside ``spending``."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=_printed,
            extensions=[loopcontrols, Generation],
            cache_size=0,
        )
        self.static_characters = 0
        self.globals = {
            "range": limited_range,
            "namespace": Namespace,
            "raise_exception": raise_exception,
            "strftime_now": strftime_now,
            "true": True,
            "false": False,
            "none": None,
        }
        self.filters = _all_paid(DEFAULT_FILTERS, FILTERS)
        self.filters |= {
            "tojson": tojson,
            "indent": _indent,
            "join": _join_filter,
            "replace": _replace_filter,
            "_turns": _turns,
            "_concat": _concat,
            "_weighed": _weighed,
        }
        self.tests = _all_paid(DEFAULT_TESTS, TESTS)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Parse, then put the budget into the program: loops count turns, ``~`` measures."""
        tree = Parser(self, source, name, filename).parse()
        self.static_characters = _static(tree)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = _filter(loop.iter, "_turns", nodes.Const(_static(loop)))
        _charge(tree)
        tree.set_environment(self)
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, allowed in METHODS.items():
            if isinstance(obj, kind) and callable(value):
                return attr in allowed
        return super().is_safe_attribute(obj, attr, value) and not callable(value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """jinja hands out ``str.format`` before asking; its widths know no bounds. Let it ask."""
        return None

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = _current.get()
        budget.take()
        budget.check(_result_size(operator, left, right))
        return _weighed(self.binop_table[operator](left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget = _current.get()
        budget.take(budget.call_cost if isinstance(__obj, Macro) else 0)
        _weighed([*args, *kwargs.values()])
        _measure_method(budget, __obj, args)
        return _made(super().call(__context, __obj, *args, **kwargs))


class Generation(Extension):
    """``{% generation %}`` marks what training looks at; here its body is simply rendered."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def limited_range(*bounds: int) -> range:
    """``range``, up to a hundred thousand numbers."""
    result = range(*bounds)
    # Not len(): it fails beyond sys.maxsize.
    if (result.stop - result.start) // result.step > MAX_RANGE:
        raise TemplateRefusal(
            "The model's chat template loops too long. Use another version of the model."
        )
    return result


def raise_exception(message: object) -> None:
    """What templates call to refuse a conversation."""
    raise TemplateRefusal(f"The model's chat template refuses: {str(message)[:300]}")


def strftime_now(form: str) -> str:
    """Today, as a template likes it written."""
    if not _DATE_FORMAT.fullmatch(form):
        raise TemplateRefusal("The model's chat template asks for an odd date.")
    return datetime.now().astimezone().strftime(form)


def tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any
) -> str:
    """JSON as transformers' templates expect it: not escaped for HTML, letters left alone."""
    unknown = set(options) - {"separators", "sort_keys"}
    if unknown or (indent is not None and not 0 <= indent <= 16):
        raise TemplateRefusal("The model's chat template writes JSON in an unusual way.")
    _weighed(value)
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)
    _current.get().take(len(text))
    return text


def _printed(value: Any) -> Any:
    return _made(_text(value))


def _turns(items: Iterable[Any], static: int) -> Iterator[Any]:
    budget = _current.get()
    for item in items:
        budget.take(static)
        yield item


def _concat(parts: list[Any]) -> str:
    return str(_made("".join(map(_text, parts))))


def _text(value: Any) -> str:
    """What ``str`` makes of a plain value, once it is known that it ends."""
    if isinstance(value, str):
        return value
    if not isinstance(value, (int, float, list, tuple, dict, Undefined, type(None))):
        raise TemplateRefusal("The model's chat template prints something that is not text.")
    return str(_weighed(value))


def _weighed(value: Any) -> Any:
    """Pay for all that a value contains, counting what is contained twice twice. Returns it."""
    budget = _current.get()
    budget.take(len(value) // 64 if isinstance(value, str) else 0)
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, (list, tuple, dict)):
            budget.take()
            waiting.extend(found.values() if isinstance(found, dict) else found)
        elif isinstance(found, Namespace) and found is not value:
            raise TemplateRefusal("The model's chat template nests what it may not.")
    return value


def _made(result: Any) -> Any:
    """Pay for a text that was made; refuse lists that take long to sort."""
    if isinstance(result, str):
        _current.get().take(len(result))
    elif isinstance(result, (list, tuple)) and len(result) > MAX_RANGE:
        raise TemplateRefusal("The model's chat template makes absurdly long lists.")
    return result


def _all_paid(functions: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: _paid(functions[name]) for name in names}


def _paid(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test that pays for what it was given and for what it made."""

    def paying(*args: Any, **kwargs: Any) -> Any:
        for arg in (*args, *kwargs.values()):
            _made(_weighed(arg))
        return _made(function(*args, **kwargs))

    for mark in ("jinja_pass_arg", "jinja_async_variant"):
        if hasattr(function, mark):
            setattr(paying, mark, getattr(function, mark))
    return paying


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    lead = width if isinstance(width, str) else " " * min(int(width), 64)
    _current.get().take(len(text) + text.count("\n") * len(lead))
    lines = text.splitlines()
    rest = [lead + line if line or blank else line for line in lines[1:]]
    return "\n".join([(lead if first else "") + lines[0], *rest]) if lines else text


def _join_filter(items: Iterable[Any], between: str = "", attribute: str | None = None) -> str:
    found = [item[attribute] if attribute is not None else item for item in items]
    return _join(_text(between), [_text(item) for item in found])


def _replace_filter(text: str, old: str, new: str) -> str:
    _current.get().check(_replaced_size(text, old, new))
    return text.replace(old, new)


def _join(between: str, texts: list[str]) -> str:
    _current.get().check(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


def _replaced_size(text: str, old: str, new: str) -> int:
    count = text.count(old) if old else len(text) + 1
    return len(text) + count * max(0, len(new) - len(old))


def _measure_method(budget: Budget, function: Any, args: tuple[Any, ...]) -> None:
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if not isinstance(owner, str):
        return
    budget.take(len(owner) // 64)
    if name == "replace" and len(args) >= 2:
        budget.check(_replaced_size(owner, str(args[0]), str(args[1])))
    elif name == "join" and args:
        budget.check(len(owner) * len(list(args[0])))


def _size(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, tuple, bytes)) else 0


def _result_size(operation: str, left: Any, right: Any) -> int:
    """About how many characters or items ``left operation right`` has; numbers count in bits."""
    if operation == "+":
        return _size(left) + _size(right)
    if operation == "%" and isinstance(left, str):
        raise TemplateRefusal("The model's chat template formats text in an unusual way.")
    if operation == "*" and (_size(left) or _size(right)):
        times = right if _size(left) else left
        return max(_size(left), _size(right)) * max(0, operator.index(times))
    if all(isinstance(value, int) for value in (left, right)):
        bits = left.bit_length() + right.bit_length()
        if operation == "**":
            bits = left.bit_length() * abs(right)
        if bits > MAX_BITS:
            raise TemplateRefusal("The model's chat template computes with absurd numbers.")
    return 0


def _static(node: nodes.Node) -> int:
    return sum(len(data.data) for data in node.find_all(nodes.TemplateData))


def _filter(value: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    assert isinstance(value, nodes.Expr)
    return nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno)


def _charge(node: nodes.Node) -> None:
    """Let everything pay that jinja does without asking its environment: ``a ~ b``, comparisons,
    slices, and the literals that nest one value in another."""
    for field in node.fields:
        value = getattr(node, field)
        if isinstance(value, nodes.Node):
            setattr(node, field, _charged(value))
        elif isinstance(value, list):
            setattr(node, field, [_charged(item) for item in value])


def _charged(value: Any) -> Any:
    if not isinstance(value, nodes.Node):
        return value
    _charge(value)
    if isinstance(value, nodes.Concat):
        return _filter(nodes.List(value.nodes, lineno=value.lineno), "_concat")
    if isinstance(value, nodes.Compare):
        value.expr = _filter(value.expr, "_weighed")
        for operand in value.ops:
            operand.expr = _filter(operand.expr, "_weighed")
    elif isinstance(value, nodes.Getitem) and isinstance(value.arg, nodes.Slice):
        value.node = _filter(value.node, "_weighed")
    elif isinstance(value, (nodes.List, nodes.Dict)) or (
        isinstance(value, nodes.Tuple) and value.ctx == "load"
    ):
        return _filter(value, "_weighed")
    return value
