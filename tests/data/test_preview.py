"""The first row of a source as plan shows it, against what the step makes of it."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from prunus.cli.render import show_preview
from prunus.console import Console
from prunus.data.chat import conversations
from prunus.data.config import ChatSource
from prunus.data.endings import ends_of
from prunus.data.preview import SHOWN, Reader, preview
from prunus.data.template import PLAIN, Dialogue, Template
from prunus.models.pretrained import load_tokenizer
from tests.steps.align.making import rows, write

TURNS = [{"role": role, "content": f"plum {i}"} for i, role in enumerate(["user", "assistant"] * 2)]


def seen(teacher: Path, file: Path, wanted: str = "answers", template: str | None = PLAIN, judged: bool = False) -> Any:
    return preview(ChatSource(path=str(file)), "data.chat.0", Reader.of(teacher, template), wanted, judged)


def test_it_is_what_the_step_learns(teacher: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", [{"messages": TURNS, "id": 1}, {"messages": TURNS, "tag": 2}])
    found = seen(teacher, file)
    tokenizer = load_tokenizer(teacher)
    row = next(conversations(ChatSource(path=str(file)), "x"))
    (read,) = Template(tokenizer, PLAIN, ends_of(teacher, tokenizer)).render([Dialogue("x", row.messages)])
    assert found.text == read.text
    assert [found.text[start:end] for start, end in found.learnt] == [
        tokenizer.decode(read.ids[start:end]) for start, end in read.answers
    ]
    assert (found.unread, found.ends) == (("id", "tag"), True)


def test_pairs_attributes_and_prompts(teacher: Path, tmp_path: Path) -> None:
    pairs = rows(1, "pairs")
    found = seen(teacher, write(tmp_path / "p.jsonl", pairs), "pairs", judged=True)
    assert [found.text[start:end] for start, end in found.learnt] == [f" {pairs[0]['chosen']}</s>"]
    assert (
        "Attributes: plums: 0" in seen(teacher, write(tmp_path / "a.jsonl", rows(1, "attributes")), "attributes").text
    )
    asked = seen(teacher, tmp_path / "p.jsonl", "prompts")
    assert (asked.learnt, asked.text.endswith("Assistant:")) == ((), True)


def test_it_is_shown_with_marks_and_cut(teacher: Path, tmp_path: Path) -> None:
    long = [{"messages": [{**TURNS[0], "content": "q" * 5000}, {**TURNS[1], "content": "a" * 5000}], "id": 1}]
    told = io.StringIO()
    show_preview(seen(teacher, write(tmp_path / "x.jsonl", long)), Console(file=told))
    assert "q [...] q" in told.getvalue()
    assert "[[ aaa" in told.getvalue()
    assert "aaa</s>]]" in told.getvalue()
    assert "unused columns: id" in told.getvalue()
    assert len(told.getvalue()) < SHOWN + 400


def test_templates_of_a_folder_are_found_as_transformers_finds_them(teacher: Path, tmp_path: Path) -> None:
    for number, chat_template in enumerate([PLAIN, {"default": "D", "tool_use": PLAIN}, None]):
        folder = shutil.copytree(teacher, tmp_path / str(number))
        tokenizer = load_tokenizer(folder)
        tokenizer.chat_template = chat_template
        for name, options in (("new", {}), ("old", {"save_jinja_files": False})):
            out = folder / name
            tokenizer.save_pretrained(out, **options)
            found = Reader.of(out, None)
            theirs = load_tokenizer(out)
            if chat_template is None:
                assert found is None
                continue
            assert found is not None
            ours = found.script.text
            assert (ours if set(ours) != {"default"} else ours["default"]) == theirs.chat_template
            assert found.script.variables == theirs.special_tokens_map
            assert set(found.script.specials) == set(theirs.all_special_tokens)


def test_what_is_on_the_hub_and_what_has_no_tokenizer_yet(teacher: Path, tmp_path: Path) -> None:
    assert preview(ChatSource(path="some/data"), "x", None, "answers", False) is None
    file = write(tmp_path / "x.jsonl", [{"messages": TURNS, "id": 1}])
    found = preview(ChatSource(path=str(file)), "x", None, "answers", False)
    assert found is not None
    assert (found.text, found.unread) == (None, ("id",))
    unended = seen(teacher, file, template="{% for m in messages %}{{ m.content }};{% endfor %}")
    assert unended.ends is False


@pytest.mark.parametrize("broken", ["tokenizer.json", "tokenizer_config.json"])
def test_a_folder_that_cannot_be_read_is_reported(teacher: Path, tmp_path: Path, broken: str) -> None:
    from prunus.errors import ModelError

    folder = shutil.copytree(teacher, tmp_path / "x")
    (folder / broken).write_text(json.dumps([]))
    with pytest.raises(ModelError, match=f"{broken}: holds list, expected an object"):
        Reader.of(folder, PLAIN)
