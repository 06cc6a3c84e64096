"""Writes what transformers' sandbox for chat templates makes of expressions, for a test of `crates/text` to compare with: jinja.json.

    python -m venv v && v/bin/pip install transformers jinja2 && v/bin/python tests/golden/text/jinja.py

Each case is a template and the text that it writes, or null if it is refused when it is rendered. The template may read `m`, a message.
"""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template

HERE = Path(__file__).parent
MESSAGES = [{"role": "user", "content": "It's 9 o'clock.\nThe kettle-lid is far, größer."}]

# Expressions, whose values are printed.
EXPRESSIONS = r"""
'%s' % 'x'
'%s-%s' % ('x', 3)
'%d %i %u' % (3, 4.9, true)
'%5.2f|%-8s|%+d|% d|%05d|%x|%X|%#x|%o|%#o' % (3.14159, 'ab', 5, 5, 42, 255, 255, 255, 8, 8)
'%e %E %g %G %.3g' % (12345.678, 0.00012, 1e20, 0.5, 1234.5)
'%r %r %r' % ('a\'b', 1.0, none)
'%a' % 'größer'
'%s %s %s %s' % (none, true, [1, 'a', 2.5], {'a': none})
'%c%c' % ('a', 98)
'100 %%' % ()
'%(role)s: %(content).4s' % m
'%(a)d %(a)s' % {'a': 3}
'%*d|%-*d|%.*f' % (5, 1, 4, 2, 2, 1.005)
'%s' % [1, 2]
'%s' % ((1, 2),)
'%.3s|%10.2s|' % ('abcdef', 'xyz')
'a%sb' % 'x' ~ 'c'
'%s' % m.role | upper
'%s' % 1 + '%s' % 2
'%s' * 2 % ('a', 'b')
7 % 3 * 2
-7 % 3
7.5 % 2
'%d' % 3 == '3'
'a' if '%s' % 1 == '1' else 'b'
('%s' % 'a', '%s' % 'b')
{'%s' % 'k': '%d' % 1}
'%s %s' % 'x'
'%s' % ('a', 'b')
'%d' % 'x'
'%y' % 1
'%s' | format('x')
'%s and %d' | format('x', 3)
'%(a)s' | format(a='x')
'%5s|%-5s|' | format('ab', 'cd')
'%r' | format('x')
'{} {}'.format('a', 1)
'{0}-{0}-{1}'.format('a', none)
'{a} {b:>5} {c:.2f} {d!r}'.format(a='x', b=3, c=1.5, d='q')
'{:,} {:_} {:08.3f} {:+d} {:x} {:#b} {:%} {:e}'.format(1234567, 1234567, 3.14159, 5, 255, 5, 0.25, 12345.0)
'{:^9}|{:*<5}|{:>4}'.format('mid', 'l', 'r')
'{0[role]} {0.role}'.format(m)
'{x[0]}'.format(x=[1, 2])
'{}'.format([1, 'a', none])
'{{}} {}'.format(1e20)
'{a}'.format_map({'a': 1})
'ab' | center(7) ~ '|'
'abc' | center ~ '|'
'abc' | center(width=8) ~ '|'
'a b/c?d=é&f' | urlencode
{'a': 1, 'b c': 'd&e'} | urlencode
[('x', 1), ('y', 'z w')] | urlencode
3 | urlencode
'The quick brown fox jumps over the lazy dog' | wordwrap(15)
'The quick brown-haired fox' | wordwrap(12)
'a-b-c-d-e-f-g-h' | wordwrap(5)
'Supercalifragilistic expialidocious' | wordwrap(10)
'Supercalifragilistic expialidocious' | wordwrap(10, false)
'one two three four' | wordwrap(width=8, wrapstring='<br>')
'one two\n\nthree four five\nsix' | wordwrap(9)
'state-of-the-art thing' | wordwrap(10, break_on_hyphens=false)
'  leading and   inner  spaces here' | wordwrap(10)
'well -- known' | wordwrap(6)
m.content | wordwrap(12)
'it\'s o\'clock (now) [then] {x} <y> a-b' | title
'it\'s o\'clock a-b 3rd x2y'.title()
'hELLO wORLD' | capitalize
'hELLO'.capitalize()
'<a href="x">\'&\'</a>' | e
'<a>' | escape | upper
'<a>' | forceescape
'<b>Hi</b>  there\n &amp; &lt;you&gt; &#39; <!-- c --> &eacute;' | striptags
{'class': 'a b', 'id': 3, 'x': none, 'y': '<'} | xmlattr
{'a': 1} | xmlattr(false)
'The quick brown fox jumps over it' | truncate(12)
'The quick brown fox jumps over it' | truncate(12, true)
'The quick brown fox jumps over it' | truncate(12, end='..', leeway=0)
'The quick brown fox' | truncate(15)
'The quick brown fox jumps' | truncate(length=9, killwords=true, end='')
[1, 512, 1000, 1500, 13000, 5000000] | map('filesizeformat') | join(' ')
1500 | filesizeformat(true)
'12' | filesizeformat
'a\nb\n\nc' | indent
'a\nb\n\nc\n' | indent(2, true, true) ~ '|'
'a\nb\n' | indent(width=1) ~ '|'
'a\nb' | indent('> ')
'a\nb' | indent('> ', first=true)
'3' | int + 1
'abc' | int
'abc' | int(-1)
'0x1f' | int(base=16)
'0x1f' | int(0, 16)
' 42 ' | int
'1_000' | int
'3.9' | int
3.9 | int
none | int(5)
'1.5' | float
'abc' | float
'abc' | float(2)
' 1e3 ' | float
'inf' | float
missing | default('d')
missing | default(default_value='d')
'' | default('d', true)
'' | default('d', boolean=true)
none | default('d')
none | d('d', true)
{'b': 1, 'A': 2, 'c': 0} | dictsort
{'b': 1, 'A': 2, 'c': 0} | dictsort(true)
{'b': 1, 'A': 2, 'c': 0} | dictsort(false, 'value')
{'b': 1, 'A': 2, 'c': 0} | dictsort(by='value', reverse=true)
['b', 'A', 'c'] | sort
['b', 'A', 'c'] | sort(true)
['b', 'A', 'c'] | sort(case_sensitive=true)
['b', 'A', 'c'] | sort(false, true)
[{'a': 2}, {'a': 1}] | sort(attribute='a')
[{'a': 2}, {'a': 1}] | sort(false, false, 'a')
[3, 1, 2] | sort(reverse=true) | first
[1, 2, 3] | sum
[{'a': 2}, {'a': 1}] | sum(attribute='a')
[[1], [2]] | sum(start=[])
[1, 2, 3, 4, 5] | batch(2) | list
[1, 2, 3, 4, 5] | batch(2, 'x') | list
[1, 2, 3, 4, 5] | batch(linecount=2, fill_with='x') | list
[1, 2, 3, 4, 5] | slice(3) | list
[1, 2, 3, 4, 5] | slice(3, 'x') | list
[1, 2, 3, 4, 5] | slice(slices=3, fill_with='x') | list
['a', 'A', 'b'] | unique | list
['a', 'A', 'b'] | unique(true) | list
[{'a': 1, 'b': 2}, {'a': 1, 'b': 3}] | unique(attribute='a') | list
['a', 'B'] | map('upper') | list
[{'a': 1}, {'b': 2}] | map(attribute='a', default='x') | list
[{'a': {'b': 1}}] | map(attribute='a.b') | list
[['x', 'y']] | map(attribute=0) | list
[['x', 'y']] | map(attribute='1') | list
[['a', 'b'], ['c']] | map('join', d='+') | list
['a\nb'] | map('indent', width=1) | list
[none, 1] | map('default', 'x', true) | list
[1, 2, 3, 4] | select('odd') | list
[1, 2, 3, 4] | reject('divisibleby', 2) | list
[0, 1, ''] | select | list
[{'a': 1}, {'a': 2}] | selectattr('a', 'equalto', 2) | list
[{'a': 1}, {}] | selectattr('a') | list
[{'a': 1}, {}] | rejectattr('a', 'defined') | list
[{'c': 'x', 'n': 1}, {'c': 'y', 'n': 2}, {'c': 'x', 'n': 3}] | groupby('c') | map('first') | list
[{'c': 'x', 'n': 1}, {'c': 'y', 'n': 2}] | groupby('c') | map(attribute='list') | list
[{'c': 'x', 'n': 1}, {'c': 'y', 'n': 2}] | groupby('c') | map(attribute='grouper') | list
[{'c': 'x'}, {}] | groupby('c', default='y') | map('first') | list
[3, 1, 2] | max
['b', 'A'] | min
['b', 'A'] | min(case_sensitive=true)
[{'a': 3}, {'a': 5}] | max(attribute='a')
[] | max is defined
[{'a': 3}, {'a': 5}] | max(false, 'a')
42.55 | round
2.5 | round
3.5 | round
42.55 | round(1)
42.55 | round(1, 'floor')
42.15 | round(method='ceil')
5 | round
5 | round(method='ceil')
1234 | round(-2)
-3 | abs
-2.5 | abs
true | abs
'abc' | first ~ ('abc' | last)
[] | first is defined
'abc' | reverse
[1, 2, 3] | reverse | list
'abc' | list
'a,b' | replace(',', ';')
'aaa' | replace('a', 'b', 2)
12 | replace(1, 'x')
'  x ' | trim ~ '|'
'xxaxx' | trim('x')
'xxaxx' | trim(chars='x')
12 | string + 'a'
[1, none, 1e20] | string
[1, none, 1e20] | join('|')
[1, 2] | join
[{'a': 1}, {'a': 2}] | join(',', attribute='a')
[{'a': 1}, {'a': 2}] | join(d=';', attribute='a')
'abc' | join('.')
{'a': 1, 'b': [1, 2]} | pprint
'a' | pprint
{'a': 1} | items | list
missing | items | list
'Hello World' | lower ~ 'x' | upper
'a b c' | wordcount
m.content | length
m | length
missing | length
{'a': 1} | tojson
'<é>' | tojson
[1.0, 1e20, none, true] | tojson(indent=1)
('a' | safe) ~ '<'
range(3) | list
range(5, 0, -2) | list
[1, 2, 3][::-1]
[1, 2, 3][-2:]
'abcdef'[1:4] ~ 'abcdef'[-1] ~ 'abcdef'[0]
'abc'[5] is defined
(1, 2)
(1,)
()
(1, 2) + (3,)
[1] + [2]
[1, 2] * 2
'ab' * 2
2 * 'ab'
7 / 2
4 / 2
7 // 2
-7 // 2
2 ** 3
2 ** -1
1 < 2 < 3
1 in [1, 2] and 3 not in [1, 2]
'a' in 'abc'
'role' in m
'a' in missing
1 ~ none ~ true ~ 1.5
1 if false
[1 if false] | length
not none
none or 'x'
0 or ''
1 == 1.0
true == 1
'1' == 1
none is none
1_000
1e3
0x1f
1.5e-7
10000000000000000000000
1e16 * 10
0.1 + 0.2
100000.0 * 1000000
-0.0
'\x41\u00e9\n\101\d\.'
"a" 'b'
{'a': 1}.a
{'a': {'b': 2}}['a']['b']
{'items': 1}.items() | list
{1: 'a', none: 'b'}
{'a': 1}.get('b', 'c')
{'a': 1}.get('b')
{'a': 1, 'b': 2}.keys() | list
{'a': 1, 'b': 2}.values() | list
{'a': 1}.copy()
{'a': 1}.items() | first
{'a': 1}.pop('a')
{'a': 1}.update({'b': 2})
[1, 2].append(3)
[2, 1].sort()
[1, 2, 1].count(1)
[1, 2, 1].index(2)
(1, 2).index(2)
[1, 2].copy()
[1, 2].index(3)
true and 1
dict(a=1, b='x')
dict({'a': 1}, b=2)
namespace(a=1).a
3 is odd and 4 is even
9 is divisibleby 3
9 is divisibleby(2)
true is boolean ~ 1 is boolean
1 is integer ~ (true is integer) ~ (1.0 is integer)
1.0 is float ~ (1 is float)
1 is number ~ (1.5 is number) ~ (true is number) ~ ('1' is number)
'a' is string ~ (1 is string)
m is mapping ~ ([] is mapping)
[] is sequence ~ ('a' is sequence) ~ (m is sequence) ~ ((1,) is sequence) ~ (1 is sequence)
[] is iterable ~ ('a' is iterable) ~ (1 is iterable) ~ (none is iterable)
range is callable ~ (m is callable)
missing is undefined ~ (missing is defined) ~ (m.nope is defined)
true is true ~ (1 is true) ~ (false is false) ~ (0 is false)
'a' is lower ~ ('A' is lower) ~ ('A1' is upper) ~ ('1' is upper)
1 is sameas 1 ~ (true is sameas true) ~ (none is sameas none) ~ (1 is sameas true)
'upper' is filter ~ ('nope' is filter) ~ ('odd' is test) ~ ('nope' is test)
('a' | e) is escaped ~ ('a' is escaped)
1 is eq 1 ~ (1 is ne 2) ~ (1 is lt 2) ~ (2 is ge 2) ~ (1 is in [1]) ~ (1 is equalto 1) ~ (3 is gt 2) ~ (1 is le 1)
1 is greaterthan 0 ~ (0 is lessthan 1)
'a' is not none
'abc'.upper() ~ 'ABC'.lower() ~ 'aBc'.swapcase() ~ 'Straße'.casefold()
' x '.strip() ~ '|' ~ ' x '.lstrip() ~ '|' ~ ' x '.rstrip() ~ '|'
'xyaxy'.strip('xy') ~ 'xa'.lstrip('x') ~ 'ax'.rstrip('x') ~ ' a '.strip(none)
'a b  c'.split()
'a,b,c'.split(',', 1)
'a,b,c'.split(sep=',', maxsplit=1)
'a,b,c'.split(',', maxsplit=1)
'a,b,c'.rsplit(',', 1)
'a,b,c'.rsplit(sep=',', maxsplit=1)
'a,b,c'.rsplit(',', -1)
'  a b c '.split(none, 1)
' a  b '.split(maxsplit=0)
'a\nb\r\nc\n'.splitlines()
'a\nb\r\nc\n'.splitlines(keepends=true)
'a-b-c'.partition('-')
'a-b-c'.rpartition('-')
'abc'.partition('x')
'abcabc'.find('c') ~ 'abcabc'.rfind('c') ~ 'abc'.find('x') ~ 'abcabc'.find('a', 1) ~ 'abcabc'.find('c', 0, 2)
'abcabc'.index('c') ~ 'abcabc'.rindex('a') ~ 'abcabc'.index('a', -3)
'abc'.index('x')
'abcabc'.count('a') ~ 'aaa'.count('aa') ~ 'abc'.count('') ~ 'abcabc'.count('a', 1) ~ 'abcabc'.count('a', 0, 3)
'abc'.startswith('a') ~ 'abc'.startswith(('x', 'a')) ~ 'abc'.startswith('b', 1) ~ 'abc'.startswith('c', 1, 2)
'abc'.endswith('c') ~ 'abc'.endswith(('x', 'c')) ~ 'abc'.endswith('b', 0, 2)
'aXbX'.replace('X', '-') ~ 'aXbX'.replace('X', '-', 1) ~ 'ab'.replace('', '.')
'abc'.removeprefix('a').removesuffix('c')
'ab'.center(7) ~ '|' ~ 'ab'.center(7, '*') ~ 'abc'.center(6, '*') ~ 'ab'.ljust(4, '.') ~ 'ab'.rjust(4) ~ '-7'.zfill(4)
'a\tb\tcd'.expandtabs(4) ~ 'a\tb'.expandtabs()
','.join(['a', 'b']) ~ ','.join('xyz')
', '.join([1])
'abc'.isalpha() ~ 'ab1'.isalnum() ~ '12'.isdigit() ~ '²'.isdigit() ~ '½'.isnumeric() ~ '½'.isdigit() ~ '12'.isdecimal() ~ '²'.isdecimal()
'ab'.islower() ~ 'a1'.islower() ~ 'AB'.isupper() ~ '1'.isupper() ~ 'Ab Cd'.istitle() ~ 'ab'.istitle() ~ ' \t'.isspace() ~ ''.isspace()
'ab_1'.isidentifier() ~ '1a'.isidentifier() ~ 'a b'.isprintable() ~ 'a\n'.isprintable() ~ 'aé'.isascii()
'größer ſ'.upper()
'ab'.translate({97: 'x', 98: none})
'It\'s'.title() ~ 'x-y z'.title()
1.5.is_integer() ~ 2.0.is_integer()
(5).bit_length()
m.content.split('\n')[0][:4]
m.content.nope()
none.strip()
missing.strip()
missing.role
m.nope.deeper
missing + 'a'
'a' + 1
none + 'a'
none | length
cycler('a', 'b').next()
joiner(',')() ~ 'x'
'a' | nope
'a' is nope
nope()
raise_exception('no')
loop is defined
{'a': 1} == {'a': 1}
[1, 2] < [1, 3]
('a', 1) == ('a', 1)
"%s" | format(1) ~ '%'
'%'
5 %2
'{:>{w}}'.format('a', w=4)
'{!s:>4}'.format('a')
'{:8.1%}|{:<8.1%}|{:^+9.2%}|{:08.1%}|{:%}'.format(0.256, 0.256, 0.5, -0.256, 1)
'{!a} {!r:>6}|{x[a b]}'.format('é', 'q', x={'a b': 1})
'{'.format(1)
'}'.format(1)
'{x.y}'.format(x={})
'{:>4}'.format(none)
'{:d}'.format('x')
'{}'.format()
'%(a)s' % {'b': 1}
'%s' % none
'%s' % missing
'%5d' % none
'%d%%' % 50
'%-5d|' % 3 ~ '%5.1f' % 2.25
""".strip().splitlines()

# Whole templates.
TEMPLATES = [
    "{% block a %}x{{ m.role }}{% endblock %}y",
    "{% set x = '%s' % 1 %}{{ x }}{% if '%d' % 2 == '2' %}yes{% endif %}",
    "{% for i in ['%s' % 1, 2 % 2] %}{{ '%s:%s' % (loop.index, i) }},{% endfor %}",
    "{% macro f(a, b='%s' % 2) %}{{ '%s/%s' % (a, b) }}{% endmacro %}{{ f('%d' % 1) }}{{ f(b=3, a=m['role'][:1]) }}",
    "{% raw %}{{ 5 % 2 }}{% endraw %}{# 5 % 2 #} {{ '{{ 5 % 2 }}' }}",
    "{% set ns = namespace(t='') %}{% for c in 'abc' %}{% set ns.t = '%s%s' % (ns.t, c | upper) %}{% endfor %}{{ ns.t }}",
    "{% filter upper %}a{{ '%s' % 'b' }}{% endfilter %}",
    "{% filter replace('a', 'x') | upper %}aba{% endfilter %}",
    "{% macro g() %}<{{ caller() }}>{% endmacro %}{% call g() %}{{ '%s' % 'in' }}{% endcall %}",
    "{% macro g() %}<{{ caller('a') }}>{% endmacro %}{% call(x) g() %}{{ x }}!{% endcall %}",
    "{% with a = '%s' % 1, b = 2 %}{{ a }}{{ b }}{% endwith %}",
    "{% set x %}a{{ 1 }}{% endset %}{{ x }}{{ x | length }}",
    "{% set x | upper %}a{% endset %}{{ x }}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }}{{ ',' if not loop.last }}{% endfor %}",
    "{% for x in [1, 2, 3] if x is odd %}{{ loop.index }}{{ x }}{% else %}none{% endfor %}",
    "{% for x in [] %}{% else %}none{% endfor %}",
    "{% for x in [1, 2, 3] %}{{ loop.cycle('a', 'b') }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.revindex }}{{ loop.changed(x // 2) }}{% endfor %}",
    "{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{{ loop.depth }}{% endfor %}",
    "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{%- if m.role == 'user' -%} a {%- else -%} b {%- endif -%}  c",
    "  {% if true %}\n  a\n  {% endif %}\n b\n",
    "{{ 'a' }}\n{{- ' b' -}}\n c",
    "{% if messages[0]['role'] is defined and messages | length == 1 %}{{ messages[0]['content'].split('\n')[-1] }}{% endif %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}",
    "{% autoescape true %}{{ '<a>' }}{% endautoescape %}",
    "{% for i in [1] %}{% set x = i %}{% endfor %}{{ x is defined }}",
    "{% generation %}{{ '%s' % 'a' }}{% endgeneration %}",
    "{% include 'x' %}",
    "{% for m in messages %}{{ loop.index0 }}{{ '%s' % m.content[:4] }}{% endfor %}",
]


def rendered(template):
    try:
        text = _compile_jinja_template(template).render(messages=MESSAGES, m=MESSAGES[0])
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
    return text, None


def main():
    cases, refused = [], []
    for template in [f"{{{{ {expression} }}}}" for expression in EXPRESSIONS] + TEMPLATES:
        text, why = rendered(template)
        cases.append([template, text])
        if why:
            refused.append(f"{template}: {why}")
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    head = json.dumps(MESSAGES, ensure_ascii=False)
    (HERE / "jinja.json").write_text(f'{{"messages": {head}, "cases": [\n{lines}\n]}}\n')
    print(f"{len(cases)} cases, {len(refused)} refused")
    print("\n".join(refused))


if __name__ == "__main__":
    main()
