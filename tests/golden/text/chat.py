"""Writes what transformers makes of conversations and of prompts with completions, for the tests of `crates/text` to compare with.

    python -m venv v && v/bin/pip install transformers jinja2 && v/bin/python tests/golden/text/chat.py

The tokenizers are those of tokenizers.json. The templates write what the models of their names write. Some are those models' own
(Qwen, SmolLM2, Zephyr, Phi 3, DeepSeek: Apache 2.0 or MIT), the others are written anew.
"""

import json
import tempfile
from itertools import takewhile
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).parent

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI "
    "assistant<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN3 = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and not(message.content.startswith('<tool_response>') and \
message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in message.content %}
                {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
                {%- set reasoning_content = message.content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + \
content.lstrip('\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"""
LLAMA3 = """{%- set date = strftime_now("%d %b %Y") if false else "26 Jul 2024" %}
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\nToday Date: " + date + "\n\n" + system + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set first = '<<SYS>>\n' + messages[0]['content'] + "
    "'\n<</SYS>>\n\n' %}{% else %}{% set rest = messages %}{% set first = '' %}{% endif %}{% for message in rest %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + (first if loop.first else '') + message['content'].strip() + "
    "' [/INST]' }}{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages | rejectattr('role', 'equalto', 'system') %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{% if role == 'system' %}{% continue %}{% endif %}{{ '<start_of_turn>' ~ role ~ '\n' ~ message['content'] | trim ~ "
    "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
R1 = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(system='') %}"
    "{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system = message['content'] %}{%- endif %}{%- endfor %}"
    "{{bos_token}}{{ns.system}}{%- for message in messages %}{%- if message['role'] == 'user' %}{{'<｜User｜>' + message['content']}}"
    "{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)
GENERATION = (
    "{%- for message in messages %}\n    {{- '<|im_start|>' + message.role + '\n' }}\n    {%- if message.role == 'assistant' %}\n"
    "        {%- generation %}\n        {%- set said = message.content %}\n        {{- said + '<|im_end|>' }}\n"
    "        {%- endgeneration %}\n    {%- else %}\n        {{- message.content + '<|im_end|>' }}\n    {%- endif %}\n"
    "    {{- '\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\n' }}\n{%- endif %}\n"
)
NO_END = (
    "{% for message in messages %}{{ message.role | upper }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# Not a form of conversations, but what templates use.
EVERYTHING = """{% macro shown(x) -%}[{{ x }}]{%- endmacro %}{% set ns = namespace(n=0) %}
{%- for m in messages -%}
{%- if m.role == 'system' %}{% continue %}{% endif -%}
{%- set ns.n = ns.n + 1 -%}
{{ shown(m | tojson) }}{{ m | tojson(indent=2) }}{{ m | tojson(separators=(',', ':'), sort_keys=true, ensure_ascii=true) }}
{{ m.content.split() }} {{ m.content.split(' ', 1) }} {{ m.content.title() }} {{ m.content.replace('e', 'E') }} {{ m.content[::-1] }}
{{ m.content.partition(' ')[0] }} {{ m.content.rsplit(' ', 1)[-1] }} {{ m.content.removeprefix('H') }} {{ m.content.splitlines() }}
{{ m.content.find('e') }} {{ m.content.center(20) }}| {{ m.content.zfill(20) }} {{ m.content.isalpha() }} {{ loop.index }} {{ loop.last }}
{{ {'a': [1, 2.5, none, true], 'b': "it's"} }} {{ none }} {{ 1e20 }} {{ 0.1 }} {{ '%s-%d' | format('x', 3) }} {{ tools is none }}
{{ m.content | length }} {{ m.keys() | list }} {{ m.items() | list | length }} {{ m.get('x', 'none') }} {{ ['b', 'a'] | sort | join(',') }}
{%- if ns.n == 2 %}{% break %}{% endif %}
{%- endfor %} {{ ns.n }} {{ missing }}{{ missing is defined }} {{ bos_token is defined }}{{ eos_token }}
"""

MORE = "additional_special_tokens"
TEMPLATES = {
    "chatml": ("gpt2", CHATML, {"eos_token": "<|im_end|>", MORE: ["<|im_start|>", "<|im_end|>"]}),
    "qwen3": ("llama3", QWEN3, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", MORE: ["<|im_start|>", "<|im_end|>"]}),
    "llama3": (
        "llama3",
        LLAMA3,
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", MORE: ["<|start_header_id|>", "<|end_header_id|>"]},
    ),
    "llama2": ("llama2", LLAMA2, {"bos_token": "<s>", "eos_token": "</s>"}),
    "mistral": ("llama2", MISTRAL, {"bos_token": "<s>", "eos_token": "</s>"}),
    "zephyr": ("llama2", ZEPHYR, {"bos_token": "<s>", "eos_token": "</s>"}),
    "gemma": ("llama2", GEMMA, {"bos_token": "<s>", "eos_token": "</s>", MORE: ["<start_of_turn>", "<end_of_turn>"]}),
    "phi3": ("llama2", PHI3, {"bos_token": "<s>", "eos_token": "<|endoftext|>", MORE: ["<|user|>", "<|assistant|>", "<|end|>"]}),
    "deepseek_r1": (
        "llama3",
        R1,
        {
            "bos_token": "<｜begin▁of▁sentence｜>",
            "eos_token": "<｜end▁of▁sentence｜>",
            MORE: ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"],
        },
    ),
    "generation": ("gpt2", GENERATION, {"eos_token": "<|im_end|>", MORE: ["<|im_start|>", "<|im_end|>"]}),
    "no_end": ("gpt2", NO_END, {"eos_token": "<|end|>"}),
}
# Ends that only generation_config.json names.
ENDS = {"gemma": ["</s>", "<end_of_turn>"], "phi3": ["<|endoftext|>", "<|end|>"]}

TALKS = [
    [("user", "Hi"), ("assistant", "Yes.")],
    [("system", "Be brief."), ("user", " How far is it? "), ("assistant", "Two streets, größer 🫖.")],
    [("user", "How far?"), ("assistant", "Two."), ("user", "And\nback?"), ("assistant", "The kettle\n\nis far.")],
]
TEXTS = [
    ("Q: how far?\nA:", " two streets"),
    ("Q: how far?\nA: ", "two streets"),
    ("\n\nHuman: q\n\nAssistant: I keep boo", "ts"),
    ("The ket", "tle's lid"),
    ("Frage: gr", "ößer 🫖"),
    ("", "Yes."),
    ("Now", "\nYes"),
    ("a  ", "  b"),
]


def tokenizer(name, config):
    golden = json.loads((HERE / "tokenizers.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "tokenizer.json").write_text(golden["tokenizers"][name]["json"])
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}))
        (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
        return AutoTokenizer.from_pretrained(folder)


def encoded(tok, text, special):
    """Its tokens, and the character where each one ends."""
    found = tok(text, add_special_tokens=special, return_offsets_mapping=True)
    return found["input_ids"], [end for _, end in found["offset_mapping"]]


def cut(ends, border):
    return len(list(takewhile(lambda end: end <= border, ends)))


def talk(tok, said):
    messages = [{"role": role, "content": content} for role, content in said]
    before = tok.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    text = tok.apply_chat_template(messages, tokenize=False)
    ids, ends = encoded(tok, text, False)
    border = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(before, text))))
    return {
        "messages": messages,
        "text": text,
        "before": before,
        "ids": ids,
        "before_ids": encoded(tok, before, False)[0],
        "prompt": cut(ends, border),
    }


def main():
    chats = {}
    for name, (base, template, config) in TEMPLATES.items():
        tok = tokenizer(base, {**config, "chat_template": template})
        ends = [tok.convert_tokens_to_ids(end) for end in ENDS.get(name, [])]
        chats[name] = {
            "tokenizer": base,
            "template": template,
            "config": config,
            "ends": ends,
            "vocabulary": len(tok),
            "talks": [talk(tok, said) for said in TALKS],
        }
    tok = tokenizer("gpt2", {"eos_token": "<|end|>", "chat_template": EVERYTHING})
    messages = [{"role": role, "content": content} for role, content in TALKS[1] + TALKS[2]]
    everything = {"template": EVERYTHING, "messages": messages, "text": tok.apply_chat_template(messages, tokenize=False)}
    texts = {}
    for base in ["gpt2", "llama3", "llama2"]:
        tok = tokenizer(base, {})
        texts[base] = []
        for prompt, completion in TEXTS:
            ids, ends = encoded(tok, prompt + completion, True)
            decoded = tok.decode(ids, skip_special_tokens=True)
            texts[base].append(
                {"prompt": prompt, "completion": completion, "ids": ids, "cut": cut(ends, len(prompt)), "decoded": decoded}
            )
    out = {"chats": chats, "everything": everything, "texts": texts}
    (HERE / "chat.json").write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
