"""Records that are damaged, of the wrong shape or not there: named, left out, and never a traceback."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.cli.render import show_results
from prunus.console import Console
from prunus.errors import ArtifactError, PrunusError
from prunus.report.card import write_cards
from prunus.report.records import load_run
from prunus.report.step import write_report
from tests.fuzz import fuzz
from tests.report.making import make_run

READ = (
    "artifact.json", "results.json", "answers.jsonl", "answers/mt.jsonl", "metrics.jsonl", "scores.json", "search.json",
    "export.json", "journal.jsonl", "parents.json",
)  # fmt: skip
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\ud800",
    [],
    {},
    [[]],
    [None],
    {"x": []},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def whole(root: Path) -> str:
    """The page, with the cards and the table of the console made as well."""
    page = write_report(root, root / "report.html").read_text(encoding="utf-8")
    show_results(root, Console(quiet=True))
    write_cards(root)
    return page


def test_a_run_of_every_kind_has_every_part(root: Path) -> None:
    page = whole(root)
    for part in (
        "Layers", "Hidden channels", "MLP neurons", "Attention heads", "KL to the teacher", "Evolution of m",
        "Search: kl by parameters", "Tasks", "Written answers", "Speed", "be warned", "rag has no score: no data",
    ):  # fmt: skip
        assert part in page
    assert "damaged" not in page
    assert "nan" not in page.lower().replace("nanoseconds", "")


def test_a_run_without_anything_finished_has_a_page(root: Path) -> None:
    for file in root.rglob("artifact.json"):
        file.unlink()
    assert "Not done yet: teacher correct, teacher score" in whole(root)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}', b"1\n2\n"])
@pytest.mark.parametrize("name", READ)
def test_a_damaged_file_is_named_and_its_step_left_out(root: Path, name: str, damage: bytes) -> None:
    file = next(file for file in sorted(root.glob(f"*/*/{name}")))
    file.write_bytes(damage)
    if name.endswith(".jsonl") and not damage:
        whole(root)  # no line is no damage
        return
    page = whole(root)
    assert "Left out, because its records are damaged" in page
    assert str(file) in page


@pytest.mark.parametrize("name", READ[1:3])
def test_a_file_that_is_gone_is_named(root: Path, name: str) -> None:
    file = root / "w" / "evaluate-00000000" / name
    file.unlink()
    assert f"{file}: cannot be read: No such file" in whole(root)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"\xff", b'{"name": 1}', b"[" * 100_000])
def test_a_damaged_manifest_is_refused(root: Path, damage: bytes) -> None:
    (root / "run.json").write_bytes(damage)
    with pytest.raises(ArtifactError, match=r"run\.json"):
        load_run(root)


@pytest.mark.parametrize("folder", ["../elsewhere", "/etc", "w/../../x"])
def test_no_folder_outside_the_run_is_read(root: Path, folder: str) -> None:
    manifest = json.loads((root / "run.json").read_text())
    manifest["steps"][0]["folder"] = folder
    (root / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"steps.0.folder: .*points outside the run's folder"):
        load_run(root)


def test_failures_stand_first(root: Path) -> None:
    manifest = json.loads((root / "run.json").read_text())
    manifest["failures"] = [{"step": "w export", "message": "the file says <b>otherwise</b>"}]
    (root / "run.json").write_text(json.dumps(manifest))
    page = whole(root)
    assert page.index("Failed: w export: the file says &lt;b&gt;otherwise&lt;/b&gt;") < page.index("<table>")
    assert "<td>w export</td><td>failed</td>" in page


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a value with another at one place, or without it where `new` is Ellipsis."""
    if not path:
        return None if new is ... else new
    found = copy.deepcopy(value)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return found


def files_of(root: Path) -> list[Path]:
    return sorted(file for file in root.rglob("*.json*") if file.name != "config.json")


def hurt(file: Path, pick: Any) -> None:
    """Change one value of a file."""
    if file.suffix == ".jsonl":
        values = [json.loads(line) for line in file.read_text().splitlines()]
    else:
        values = json.loads(file.read_text())
    path, new = pick(list(places(values)))
    values = changed(values, path, new)
    lines = values if file.suffix == ".jsonl" and isinstance(values, list) else [values]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


@fuzz(60)
@given(data=st.data())
def test_no_value_of_any_record_ends_in_a_traceback(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = make_run(tmp_path_factory.mktemp("hurt"))
    file = data.draw(st.sampled_from(files_of(root)))
    hurt(file, lambda all_places: (data.draw(st.sampled_from(all_places)), data.draw(st.sampled_from([..., *ODD]))))
    try:
        whole(root)
    except PrunusError as error:
        assert file.name == "run.json"
        assert "run.json" in str(error)


@pytest.mark.parametrize(
    "text", ["\u2028", "\u2029", "\x85", "\ud800", "\x00", "\x1b[2J", "\u202eback", "\r", "a" * 10**6]
)
def test_any_answer_of_a_model_can_be_reported(root: Path, text: str) -> None:
    folder = root / "w" / "evaluate-00000000"
    answer = json.dumps({"prompt": "Once", "answer": f"before{text}after"}, ensure_ascii=False)
    said = json.dumps({"id": text, "said": [text], "answers": [[text]]}, ensure_ascii=False)
    raw = {"answers.jsonl": answer, "answers/mt.jsonl": said}
    for name, line in raw.items():
        (folder / name).write_bytes(line.encode("utf-8", "surrogatepass" if text != "\ud800" else "replace") + b"\n")
    if text == "\ud800":  # as JSON may have it
        (folder / "answers.jsonl").write_text(json.dumps({"prompt": "Once", "answer": f"before{text}after"}) + "\n")
    page = whole(root)
    assert "Left out" not in page
    assert "before" in page
    for character in "\x00\x1b\ud800\u202e":
        assert character not in page
    assert len(page) < 200_000


def test_names_of_tasks_and_references_are_escaped_in_charts(root: Path) -> None:
    manifest = json.loads((root / "run.json").read_text())
    bad = "<script>alert(1)</script>\x1b"
    manifest["steps"][-1]["subject"] = bad
    (root / "run.json").write_text(json.dumps(manifest))
    file = root / "w" / "evaluate-00000000" / "results.json"
    found = json.loads(file.read_text())
    found["tasks"][bad] = found["tasks"]["mmlu"]
    file.write_text(json.dumps(found))
    page = whole(root)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "\x1b" not in page
