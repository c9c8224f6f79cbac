"""The special tokens and the chat template of tokenizers that are made here; others bring their own."""

from __future__ import annotations

PAD, BOS, EOS, UNK = "<|pad|>", "<|begin|>", "<|end|>", "<|unk|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
THINK, END_THINK = "<think>", "</think>"
SPECIAL = (PAD, BOS, EOS, UNK, SYSTEM, USER, ASSISTANT)
VISIBLE = (THINK, END_THINK)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{ '<|assistant|>' + (message['content'] if loop.last else message['content'].split('</think>')[-1]) }}"
    "{{ '<|end|>' }}"
    "{%- elif message['role'] in ('system', 'developer') -%}{{ '<|system|>' + message['content'] }}"
    "{%- elif message['role'] == 'user' -%}{{ '<|user|>' + message['content'] }}"
    "{%- else -%}{{ raise_exception('There is no role “' + message['role'] + '”; there are system, developer, user, assistant.') }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)
