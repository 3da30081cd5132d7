"""Chat templates of strangers: what they may cost, and what is said of broken ones."""

from __future__ import annotations

import tracemalloc

import pytest

from seedbed.errors import ConfigError, DataError
from seedbed.tokenizers import rendering
from seedbed.tokenizers.rendering import render_template

GROW = "{% set n = namespace(x='ab', y=['ab']) %}{% for i in range(60) %}{% set n.x = n.x STEP %}{% endfor %}"
NEST = "{% set n = namespace(y=['ab']) %}{% for i in range(60) %}{% set n.y = [n.y, n.y] %}{% endfor %}"


@pytest.fixture(autouse=True)
def little_work(monkeypatch):
    monkeypatch.setattr(rendering, "MOST_WORK", 200_000)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10**12 }}",
        "{% set x = 10**12 * [1] %}",
        "{{ 10 ** (10**10) }}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% set r = range(999)|list %}{% for a in r %}{% for b in r|map('abs') %}{% endfor %}{% endfor %}",
        "{% for i in range(9999) %}" + "text " * 99 + "{% endfor %}",
        "{% set l = range(9999)|list %}{% for i in range(9999) %}{% if 'x' in l %}{% endif %}{% endfor %}",
        "{% set l = range(9999)|list %}{% for i in range(9999) %}{% set m = l[1:] %}{% endfor %}",
        "{% set t = 'x' * 9999 %}{% for i in range(9999) %}{% if t == t ~ '' %}{% endif %}{% endfor %}",
        "{% set l = range(999)|list %}{{ ([l] * 999)|sum(start=[]) }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(99) }}",
        GROW.replace("STEP", "~ n.x"),
        GROW.replace("STEP", "+ n.x"),
        GROW.replace("{% set n.x = n.x STEP %}", "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}"),
        NEST + "{{ n.y }}",
        NEST + "{{ n.y|tojson }}",
        NEST + "{{ '%s' % n.y }}",
        NEST + "{{ '{}'.format(n.y) }}",
        NEST + "{{ raise_exception(n.y) }}",
        "{{ lipsum(n=10**9) }}",
        "{{ 'a'|center(10**11) }}",
        "{{ 'a'.ljust(10**11) }}",
        "{{ '%099999999999d' % 1 }}",
        "{{ '%099999999999d'|format(1) }}",
        "{{ '{:99999999999d}'.format(1) }}",
    ],
)
def test_a_template_that_works_without_end_is_refused(template):
    with pytest.raises(DataError, match="it takes more work than any conversation is worth"):
        render_template(template)


LONG = "{% set a = 'a' * 5000 %}{% set l = ['a'] * 5000 %}{% set lines = '\\n' * 5000 %}{% set tabs = '\\t' * 5000 %}"


@pytest.mark.parametrize(
    "template",
    [
        "{{ a|replace('a', a) }}",
        "{{ a.replace('a', a) }}",
        "{{ a|replace('', a) }}",
        "{{ ('%(a)s' * 5000) % {'a': a} }}",
        "{{ ('%(a)s' * 5000)|format(a=a) }}",
        "{{ ('{0}' * 5000).format(a) }}",
        "{{ ('{0[0]}' * 5000).format([a]) }}",
        "{{ ('{a}' * 5000).format_map({'a': a}) }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '{:{}}'.format(1, 10**9) }}",
        "{{ '{:{a[0]}}'.format(1, a=[10**9]) }}",
        "{{ lines|indent(5000) }}",
        "{{ lines|indent(a) }}",
        "{{ tabs.expandtabs(5000) }}",
        "{{ a.join(l) }}",
        "{{ l|join(a) }}",
        "{{ l|map('upper')|join(d=a) }}",
        "{{ a|wordwrap(1, wrapstring=a) }}",
        "{{ a.translate({97: a}) }}",
    ],
)
def test_what_is_written_many_times_is_refused_before_it_is_there(template):
    assert render_template(LONG + "{{ a|length }}") == "5000"  # what stands before is no work to speak of
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="it takes more work than any conversation is worth"):
            render_template(LONG + template)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for x in %}", "not valid Jinja"),
        (
            "".join(f"{{% for a{i} in x %}}" for i in range(30)) + "{% endfor %}" * 30,
            "too many statically nested blocks",
        ),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "recursion"),
        ("{{ " + "9" * 5000 + " }}", "4300 digits"),
    ],
)
def test_a_template_that_cannot_be_compiled_is_told_in_one_line(template, said):
    with pytest.raises(ConfigError) as caught:
        render_template(template)
    assert said in caught.value.problem and "\n" not in caught.value.problem and len(caught.value.problem) < 400


@pytest.mark.parametrize(
    "template",
    ["{{ 1 / 0 }}", "{{ none[0].x }}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% include 'x' %}",
     "{% for x in none %}{% endfor %}", "{{ 9.0 ** 9999 }}", "{{ ''.__class__.__mro__ }}"],
)  # fmt: skip
def test_a_template_that_fails_is_told_in_one_line(template):
    with pytest.raises(DataError) as caught:
        render_template(template)
    assert "\n" not in caught.value.problem


def test_too_little_memory_for_a_template_is_told(monkeypatch):
    def hungry(form):
        raise MemoryError

    monkeypatch.setattr(rendering, "_refuse", hungry)
    with pytest.raises(DataError, match="cannot render the conversation: MemoryError"):
        render_template("{{ raise_exception('once more') }}")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{% for m in rows|map(attribute='a') %}{{ m }}{{ loop.last }}{% endfor %}", "qFalserTrue"),
        ("{% for m in rows if m.a == 'r' %}{{ loop.index }}{{ m.a }}{% endfor %}", "1r"),
        ("{% for k, v in {'a': 1}.items() %}{{ k ~ v ~ none }}{% endfor %}", "a1None"),
        ("{% for x in missing %}{% else %}none{% endfor %}{{ missing }}{{ 10**6 }}", "none1000000"),
        ("{% for x in [[[1]]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}", "1"),
        ("{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}hi{% endcall %}", "[hi]"),
        (
            "{% filter upper %}a{{ 'b' }}{% endfilter %}{{ [1] * 3 }}{{ rows|tojson }}",
            'AB[1, 1, 1][{"a": "q"}, {"a": "r"}]',
        ),
    ],
)
def test_what_templates_do_stays_as_it_was(template, text):
    assert render_template(template, rows=[{"a": "q"}, {"a": "r"}]) == text
