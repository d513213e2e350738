"""Which tokens are the assistant's."""

from pathlib import Path
from typing import Any

import pytest

from prunus.data.template import PLAIN, Dialogue, Template, read_template
from prunus.errors import DataError, ModelError
from prunus.inference.prompts import rendered
from prunus.models.pretrained import load_tokenizer

SAYS = "{{ m.content }}<END>"
MARKED = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}" + SAYS + "{% endgeneration %}"
    "{% else %}{{ m.content }}<END>{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
BARE = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
FORGETFUL = (  # shows no answer but the last, as templates do that drop earlier reasoning
    "{% for m in messages %}{% if m.role == 'user' or loop.last %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TURNS = [
    {"role": "system", "content": "once upon a time"},
    {"role": "user", "content": "plum tree"},
    {"role": "assistant", "content": "cherry tree"},
    {"role": "user", "content": "almond\ntree?"},
    {"role": "assistant", "content": "was fruit \u00e9\u4e2d "},
]


@pytest.fixture(scope="module")
def tokenizer(teacher: Path) -> Any:
    return load_tokenizer(teacher)


def said(template: Template, *dialogues: Dialogue) -> list[list[str]]:
    """What counts of each conversation, as text."""
    return [
        [template.tokenizer.decode(read.ids[start:end]) for start, end in read.answers]
        for read in template.render(dialogues)
    ]


@pytest.mark.parametrize("text", [MARKED, BARE])
def test_the_assistants_tokens_count_and_no_others(tokenizer: Any, text: str) -> None:
    border = "" if text is MARKED else "\n"  # without marks all between two turns is the assistant's
    wanted = [f"cherry tree<END>{border}", f"was fruit \u00e9\u4e2d <END>{border}"]
    template = Template(tokenizer, text)
    assert said(template, Dialogue("here", TURNS)) == [wanted]
    assert said(template, *[Dialogue("here", TURNS, prompt=4)] * 300) == [wanted[1:]] * 300


def test_marks_are_read_as_transformers_reads_them(tokenizer: Any) -> None:
    (read,) = Template(tokenizer, MARKED).render([Dialogue("here", TURNS)])
    theirs = tokenizer.apply_chat_template(
        TURNS, chat_template=MARKED, return_dict=True, return_assistant_tokens_mask=True
    )
    assert read.ids == theirs["input_ids"]
    ours = [any(start <= place < end for start, end in read.answers) for place in range(len(read.ids))]
    assert ours == [bool(place) for place in theirs["assistant_masks"]]
    assert read.answer_tokens == sum(ours)


def test_the_blank_between_turns_does_not_count_behind_a_token_that_ends_one(tokenizer: Any) -> None:
    text = BARE.replace("<END>", "{{ eos_token }}")
    assert said(Template(tokenizer, text), Dialogue("here", TURNS)) == [
        [f"cherry tree{tokenizer.eos_token}", f"was fruit \u00e9\u4e2d {tokenizer.eos_token}"]
    ]


def test_a_question_is_the_beginning_of_what_is_learnt(tokenizer: Any) -> None:
    for text in (MARKED, BARE, PLAIN):
        template = Template(tokenizer, text)
        (read,) = template.render([Dialogue("here", TURNS)])
        asked, ids = rendered(TURNS[:4], tokenizer, "here", template=text)
        assert read.text.startswith(asked)
        assert read.ids[: len(ids)] == ids
        assert read.answers[-1][0] == len(ids)


def test_plain_shows_functions_and_calls(tokenizer: Any) -> None:
    call = {"type": "function", "function": {"name": "pick", "arguments": {"tree": "plum"}}}
    turns = [TURNS[1], {"role": "assistant", "content": "", "tool_calls": [call]}]
    ((answer,),) = said(Template(tokenizer, PLAIN), Dialogue("here", turns, [call]))
    assert answer == ' {"name": "pick", "arguments": {"tree": "plum"}}' + tokenizer.eos_token


def test_a_template_that_omits_or_refuses_a_turn_is_refused(tokenizer: Any) -> None:
    dialogue = Dialogue("x.jsonl, row 3", TURNS)
    with pytest.raises(DataError, match="x.jsonl, row 3: the chat template omits the assistant's text"):
        said(Template(tokenizer, FORGETFUL), Dialogue("x.jsonl, row 3", TURNS[1:]))
    mute = MARKED.replace(SAYS, "", 1)
    with pytest.raises(DataError, match="x.jsonl, row 3: .* omits the assistant's text in turn 3"):
        said(Template(tokenizer, mute), dialogue)
    strict = MARKED.replace("<{{ m.role }}>", "{% if m.role == 'system' %}{{ raise_exception('no rules') }}{% endif %}")
    with pytest.raises(DataError, match="x.jsonl, row 3: the chat template refuses it: no rules"):
        said(Template(tokenizer, strict), dialogue)
    with pytest.raises(ModelError, match="no chat template; give a file with one, or `builtin:plain`"):
        Template(tokenizer)


def test_templates_come_from_files(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "x.jinja").write_text(BARE)
    assert read_template(str(tmp_path / "x.jinja")) == BARE
    assert read_template("builtin:plain") == PLAIN
    assert read_template(None) is None
    with pytest.raises(DataError, match="data.template: .*y.jinja: cannot be read"):
        read_template(str(tmp_path / "y.jinja"))


def test_an_answer_ends_once(tokenizer: Any) -> None:
    end, other = tokenizer.eos_token_id, tokenizer.bos_token_id
    twice = PLAIN.replace("{{ eos_token or '\\n' }}", "{{ bos_token + '\\n' + eos_token + eos_token }}")
    for ends, wanted in (((), [other, end, end]), ((end,), [other, end]), ((other, end), [other])):
        (read,) = Template(tokenizer, twice, ends).render([Dialogue("here", TURNS)])
        for start, stop in read.answers:
            assert [token for token in read.ids[start:stop] if token in (end, other)] == wanted


def test_turns_that_are_not_to_be_learnt_are_left_out(tokenizer: Any) -> None:
    turns = [*TURNS[:2], {**TURNS[2], "learnt": False}, *TURNS[3:]]
    for text in (MARKED, BARE, PLAIN):
        template = Template(tokenizer, text)
        assert said(template, Dialogue("here", turns)) == [said(template, Dialogue("here", TURNS))[0][1:]]


def test_what_the_template_omits_is_reported(tokenizer: Any) -> None:
    deaf = BARE.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    with pytest.raises(DataError, match="row 3: the chat template omits the system's text in turn 1"):
        said(Template(tokenizer, deaf), Dialogue("row 3", TURNS))
    call = {"type": "function", "function": {"name": "a", "arguments": {}}}
    turns = [TURNS[1], {"role": "assistant", "content": "", "tool_calls": [call]}]
    with pytest.raises(DataError, match="row 3: the chat template omits the call of a in turn 2"):
        said(Template(tokenizer, BARE), Dialogue("row 3", turns))
    with pytest.raises(DataError, match=r"row 3: the chat template omits the functions \(tools: a\)"):
        said(Template(tokenizer, BARE), Dialogue("row 3", TURNS, [call]))
