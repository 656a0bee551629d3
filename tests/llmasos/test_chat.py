"""Chat templates: good ones render as transformers renders them, bad ones can do nothing."""

from __future__ import annotations

import contextlib
import resource
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmasos.errors import ChatTemplateError
from llmasos.text.chat import render_chat, render_transcript

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi <b>&amp; you?\n"},
    {"role": "assistant", "content": "  Fine. "},
    {"role": "user", "content": "你好🙂"},
]

CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
LLAMA = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
GEMMA = (
    "{{ bos_token }}\n"
    "{%- if messages[0]['role'] == 'system' -%}\n"
    "    {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}\n"
    "    {%- set loop_messages = messages[1:] -%}\n"
    "{%- else -%}{%- set first_user_prefix = '' -%}\n"
    "    {%- set loop_messages = messages -%}{%- endif -%}\n"
    "{%- for message in loop_messages -%}\n"
    "    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}\n"
    "        {{ raise_exception('Conversation roles must alternate') }}\n"
    "    {%- endif -%}\n"
    "    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}\n"
    "    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}\n"
    "    {%- if message['content'] is string -%}{{ message['content'] | trim }}{%- endif -%}\n"
    "    {{ '<end_of_turn>\n' }}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}\n"
)
NAMESPACE = (
    "{% set ns = namespace(users=0, text='') %}{% for m in messages %}"
    "{% if m.role == 'user' %}{% set ns.users = ns.users + 1 %}{% endif %}"
    "{% set ns.text = ns.text ~ m.role ~ ';' %}{% endfor %}{{ ns.users }}{{ ns.text }}"
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('|') }}"
    "{% macro wrap(x) %}[{{ x }}]{% endmacro %}{{ wrap('a') }}{{ messages[::-1][0].content }}"
    "{{ {'b': [1, 'é<']} | tojson }}{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}"
    "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ loop.length }}"
    "{% endfor %}{% generation %}g{% endgeneration %}{{ 'a,b'.split(',')[-1].upper() }}"
)


@pytest.mark.parametrize("template", [CHATML, LLAMA, GEMMA, NAMESPACE])
@pytest.mark.parametrize("generation", [True, False])
def test_it_renders_as_transformers_does(template: str, generation: bool) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    theirs, _ = render_jinja_template(
        [MESSAGES],
        chat_template=template,
        add_generation_prompt=generation,
        bos_token="<s>",
        eos_token="</s>",
    )
    ours = render_chat(template, MESSAGES, bos="<s>", eos="</s>", add_generation_prompt=generation)
    assert ours == theirs[0]


DOUBLING = "{% for i in range(90) %}{% set ns.x = ns.x OP ns.x %}{% endfor %}{{ ns.x }}"
TREE = "{% set x = [[]] %}" + "{% set x = [x, x] %}" * 60
GREEDY = {
    "a range of a billion": "{% for i in range(10**9) %}x{% endfor %}",
    "loops in loops": "{% for i in range(99999) %}"
    "{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a product": "{{ 'x' * 10**10 }}",
    "a product of lists": "{{ ([0] * 10**10) | length }}",
    "a power": "{{ 10**10**10 }}",
    "many powers": "{% set ns = namespace(x=3) %}" + DOUBLING.replace("OP", "*"),
    "a width": "{{ 'x'.center(10**9) }}",
    "a filter's width": "{{ 'x' | center(10**9) }}",
    "a format": "{{ '{:>1000000000}'.format(3) }}",
    "a percent format": "{{ '%1000000000d' % 3 }}",
    "doubling by ~": "{% set ns = namespace(x='aaaa') %}" + DOUBLING.replace("OP", "~"),
    "doubling by +": "{% set ns = namespace(x='aaaa') %}" + DOUBLING.replace("OP", "+"),
    "doubling lists": "{% set ns = namespace(x=[1]) %}" + DOUBLING.replace("OP", "+"),
    "doubling by capture": "{% set ns = namespace(x='aaaa') %}{% for i in range(90) %}"
    "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
    "a macro without end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that doubles": "{% macro f(x, n) %}{% if n %}{{ f(x ~ x, n - 1) }}{% endif %}{{ x }}"
    "{% endmacro %}{{ f('aaaa', 60) }}",
    "a loop that recurses": "{% for c in 'ab' recursive %}{{ loop('ab') }}{% endfor %}",
    "a join": "{{ [1, 2] | map('string') | join('-' * 9000000) }}",
    "a replacement": "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
    "a replacing filter": "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
    "a tree printed": TREE + "{{ x }}",
    "a tree as JSON": TREE + "{{ x | tojson }}",
    "trees compared": TREE + TREE.replace("x", "y") + "{% if x == y %}{% endif %}",
    "sorting": "{% set f = ('a' * 1000000) | list %}{% for i in range(999) %}"
    "{{ f | sort | length }}{% endfor %}",
    "comparing without a loop": "{% set a = [1] * 9999 %}{% set b = [1] * 9999 %}"
    + "{% if a == b %}{% endif %}" * 2000,
    "slicing without a loop": "{% set a = 'a' * 4000000 %}" + "{% set b = a[::-1] %}" * 3000,
    "fixed text in a loop": "{% for i in range(99999) %}" + "x" * 60000 + "{% endfor %}",
    "captured in a loop": "{% for i in range(99999) %}{% set x %}{{ 'a' * 999 }}{% endset %}"
    "{% endfor %}",
    "a date": "{{ strftime_now('%999999999d') }}",
    "parentheses": "{{" + "(" * 60000,
    "a long sum": "{{ " + "1+" * 30000 + "1 }}",
    "nested ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "namespaces in namespaces": "{% set n = namespace() %}"
    + "{% set n = namespace(a=n, b=n) %}" * 50
    + "{{ n }}",
    "its own length": " " * 70_000,
}


@pytest.mark.parametrize("name", GREEDY)
def test_it_ends_soon_and_small(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.thread_time()
    with pytest.raises(ChatTemplateError) as caught:
        render_chat(GREEDY[name], MESSAGES)
    assert time.thread_time() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    assert "chat template" in str(caught.value)


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__ }}",
    "{{ messages | map(attribute='__class__') | list }}",
    "{{ messages | attr('__class__') }}",
    "{{ messages[0]['__class__'] }}",
    "{{ range.__self__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ self.__init__ }}{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os }}{{ lipsum.__globals__ }}{{ joiner }}{{ dict }}",
    "{{ config }}{{ request }}{{ get_flashed_messages }}{{ url_for }}",
    "{% macro f() %}{% endmacro %}{{ f.__call__ }}{{ f._func }}{{ f._environment }}",
    "{% for m in messages %}{{ loop._iterator }}{{ loop._recurse }}{% endfor %}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ '{x}'.format_map(messages[0]) }}",
    "{{ ''.join.__self__ }}{{ 'a'.encode().decode }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends 'x' %}",
    "{{ caller }}{{ varargs }}{{ kwargs.__class__ }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{{ messages[0].pop('role') }}",
    "{{ (1).__class__ }}{{ (1).real.__class__ }}",
    "{{ none.__class__ }}{{ true.__class__.__mro__ }}",
    "{{ undefined_thing.__class__ }}",
    "{{ namespace(a=1).__class__ }}{{ namespace(a=1).__attrs }}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_it_does_not_reach_python(template: str) -> None:
    messages = [dict(message) for message in MESSAGES]
    try:
        text = render_chat(template, messages)
    except ChatTemplateError:
        text = ""
    assert "<" not in text, text
    assert "class" not in text
    assert "root:" not in text
    assert messages == MESSAGES


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["{{", "}}", "{%", "%}", "for m in messages", "endfor", "if", "endif", "set x =", "x",
             "messages", "~", "*", "10**9", "|join", "|list", "[0]", ".role", "'a'", "(", ")", "+",
             " range(99999)", "x.__class__", "loop.index", "macro f()", "endmacro", "f()", "\n"]
        ),
        max_size=14,
    )
)  # fmt: skip
def test_any_template_ends_in_a_text_or_a_clear_error(parts: list[str]) -> None:
    began = time.thread_time()
    with contextlib.suppress(ChatTemplateError):
        assert isinstance(render_chat(" ".join(parts), MESSAGES), str)
    assert time.thread_time() - began < 2


def test_a_template_may_refuse_a_conversation() -> None:
    with pytest.raises(ChatTemplateError, match="roles must alternate"):
        render_chat(GEMMA, [MESSAGES[1], MESSAGES[1]])


@pytest.mark.parametrize(
    "messages",
    [
        [],
        ["text"],
        [{"content": "no role"}],
        [{"role": 3, "content": "x"}],
        [{"role": "user", "content": 3}],
        [{"role": "user", "content": [{"type": "image_url"}]}],
        [{"role": "user", "content": "x"}] * 5000,
    ],
)
def test_messages_that_are_none_are_refused(messages: Any) -> None:
    with pytest.raises(ChatTemplateError):
        render_chat(CHATML, messages)
    with pytest.raises(ChatTemplateError):
        render_transcript(messages)


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert render_chat("{{ messages[0].content }}", [{"role": "user", "content": parts}]) == "ab"


def test_a_transcript_says_whose_turn_it_is() -> None:
    transcript = render_transcript(MESSAGES)
    assert transcript.text == (
        "System: Be brief.\nUser: Hi <b>&amp; you?\nAssistant: Fine.\nUser: 你好🙂\nAssistant:"
    )
    assert "\nUser:" in transcript.stop


def test_a_transcript_has_no_other_roles() -> None:
    with pytest.raises(ChatTemplateError, match="wizard"):
        render_transcript([{"role": "wizard", "content": "x"}])
