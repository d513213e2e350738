"""Chat templates in the manner of those that people use, with marks around what the assistant says.

Each is marked: `unmarked` takes the marks out, and what is found without them is held against what transformers says
stands between them.
"""

import re

_CALLS = (
    '{%- for call in m.tool_calls or [] -%}{{- \'\\n<tool_call>\\n{"name": "\' + call.function.name + \'", '
    "\"arguments\": ' + (call.function.arguments | tojson) + '}\\n</tool_call>' -}}{%- endfor -%}"
)
_CHATML_END = "{{- '<|im_end|>' -}}{%- endgeneration -%}{{- '\\n' -}}"
_TOOL = "{{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' -}}"

CHATML = (
    "{%- for m in messages -%}{%- if m.role == 'assistant' -%}{{- '<|im_start|>assistant\\n' -}}{%- generation -%}"
    "{{- m.content -}}" + _CALLS + _CHATML_END + "{%- elif m.role == 'tool' -%}" + _TOOL + "{%- else -%}"
    "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
QWEN3 = (  # thoughts are shown behind the last question alone, and the last answer has one, be it empty
    "{%- set ns = namespace(asked=-1) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}"
    "{%- set ns.asked = loop.index0 -%}{%- endif -%}{%- endfor -%}"
    "{%- for m in messages -%}{%- if m.role == 'assistant' -%}{%- set said = m.content -%}{%- set thought = '' -%}"
    "{%- if '</think>' in said -%}{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}"
    "{%- set said = said.split('</think>')[-1].lstrip('\\n') -%}{%- endif -%}"
    "{{- '<|im_start|>assistant\\n' -}}{%- generation -%}"
    "{%- if loop.index0 > ns.asked and (loop.last or thought) -%}"
    "{{- '<think>\\n' + thought + '\\n</think>\\n\\n' -}}{%- endif -%}{{- said -}}"
    + _CALLS + _CHATML_END + "{%- elif m.role == 'tool' -%}" + _TOOL + "{%- else -%}"
    "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)  # fmt: skip
LLAMA3 = (
    "{{- bos_token -}}{%- for m in messages -%}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' -}}"
    "{%- if m.role == 'assistant' -%}{%- generation -%}{{- m.content | trim + '<|eot_id|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- m.content | trim + '<|eot_id|>' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"
)
PHI3 = (  # the last turn alone ends with eos_token
    "{%- for m in messages -%}{{- '<|' + m.role + '|>\\n' -}}{%- if m.role == 'assistant' -%}{%- generation -%}"
    "{{- m.content + '<|end|>' -}}{%- if loop.last and not add_generation_prompt -%}{{- '\\n' + eos_token -}}"
    "{%- endif -%}{%- endgeneration -%}{%- if not loop.last or add_generation_prompt -%}{{- '\\n' -}}{%- endif -%}"
    "{%- else -%}{{- m.content + '<|end|>\\n' -}}{%- if loop.last and not add_generation_prompt -%}{{- eos_token -}}"
    "{%- endif -%}{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"
)
MISTRAL = (  # the system message stands in the first question
    "{{- bos_token -}}{%- set ns = namespace(rule='') -%}{%- for m in messages -%}{%- if m.role == 'system' -%}"
    "{%- set ns.rule = m.content + '\\n\\n' -%}{%- elif m.role == 'user' -%}"
    "{{- '[INST] ' + ns.rule + m.content + ' [/INST]' -}}{%- set ns.rule = '' -%}"
    "{%- else -%}{%- generation -%}{{- ' ' + m.content + eos_token -}}{%- endgeneration -%}{%- endif -%}{%- endfor -%}"
)
NEMO = (  # the system message stands in the last question
    "{{- bos_token -}}{%- set ns = namespace(rule='', asked=-1) -%}{%- for m in messages -%}"
    "{%- if m.role == 'system' -%}{%- set ns.rule = m.content + '\\n\\n' -%}{%- elif m.role == 'user' -%}"
    "{%- set ns.asked = loop.index0 -%}{%- endif -%}"
    "{%- endfor -%}{%- for m in messages -%}{%- if m.role == 'user' -%}"
    "{{- '[INST]' + (ns.rule if loop.index0 == ns.asked else '') + m.content + '[/INST]' -}}"
    "{%- elif m.role == 'assistant' -%}{%- generation -%}{{- m.content + eos_token -}}{%- endgeneration -%}"
    "{%- endif -%}{%- endfor -%}"
)
GEMMA = (
    "{{- bos_token -}}{%- set ns = namespace(rule='') -%}{%- for m in messages -%}{%- if m.role == 'system' -%}"
    "{%- set ns.rule = m.content + '\\n\\n' -%}{%- elif m.role == 'user' -%}"
    "{{- '<start_of_turn>user\\n' + ns.rule + (m.content | trim) + '<end_of_turn>\\n' -}}{%- set ns.rule = '' -%}"
    "{%- else -%}{{- '<start_of_turn>model\\n' -}}{%- generation -%}{{- (m.content | trim) + '<end_of_turn>' -}}"
    "{%- endgeneration -%}{{- '\\n' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"
)
VICUNA = (
    "{%- for m in messages -%}{%- if m.role == 'system' -%}{{- m.content + '\\n\\n' -}}{%- elif m.role == 'user' -%}"
    "{{- 'USER: ' + m.content + ' ' -}}{%- else -%}{{- 'ASSISTANT:' -}}{%- generation -%}"
    "{{- ' ' + m.content + eos_token -}}{%- endgeneration -%}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}"
)
DEEPSEEK = (  # thoughts are never shown
    "{{- bos_token -}}{%- for m in messages -%}{%- if m.role == 'system' -%}{{- m.content -}}"
    "{%- elif m.role == 'user' -%}{{- '<|User|>' + m.content -}}{%- else -%}{{- '<|Assistant|>' -}}{%- generation -%}"
    "{{- m.content.split('</think>')[-1] + eos_token -}}{%- endgeneration -%}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|Assistant|>' -}}{%- endif -%}"
)

SPECIALS = (
    "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end|>",
    "<|user|>", "<|assistant|>", "<|system|>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>", "<|User|>",
    "<|Assistant|>",
)  # fmt: skip
TEMPLATES = {
    "ChatML": CHATML, "Qwen3": QWEN3, "Llama 3": LLAMA3, "Phi-3": PHI3, "Mistral": MISTRAL, "Mistral Nemo": NEMO,
    "Gemma": GEMMA, "Vicuna": VICUNA, "DeepSeek": DEEPSEEK,
}  # fmt: skip
WITH_TOOLS = ("ChatML", "Qwen3")
WITH_THOUGHTS = ("Qwen3", "DeepSeek")


def unmarked(template: str) -> str:
    """The template without its marks."""
    return re.sub(r"\{%-? *(end)?generation *-?%\}", "", template)
