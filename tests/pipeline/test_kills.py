"""A process that dies at any operation on the file system while it begins, reopens, finishes or abandons a result.

The child is a fork that ends without a word (`os._exit`) before its n-th operation, as by SIGKILL. Whatever n is, the
next start must find the work or the finished result, and never end in an error.
"""

import builtins
import io
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from prunus.graph.artifact import Artifact
from prunus.graph.records import MISSING_GRADES

KEY = "0000000a"
OPERATIONS = ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync", "open")


def dies_at(number: int, work: Callable[[], None]) -> bool:
    """Do some work in a fork that dies before its operation of this number. Returns whether it came to its end."""
    child = os.fork()
    if child == 0:
        left = [number]

        def counted(operation: Callable) -> Callable:
            def call(*arguments, **options):
                if left[0] == 0:
                    os._exit(9)
                left[0] -= 1
                return operation(*arguments, **options)

            return call

        for name in OPERATIONS:
            setattr(os, name, counted(getattr(os, name)))
        io.open = builtins.open = counted(io.open)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9), "the work itself failed"
    return status == 0


def kills(tmp_path: Path, prepare: Callable[[Artifact], None], work: Callable[[Artifact], None]):
    """For each operation of `work` the artifact as a kill just before it leaves it, until the work comes to its end."""
    for number in range(200):
        artifact = Artifact(tmp_path / str(number) / "made", KEY)
        artifact.path.parent.mkdir(parents=True)
        prepare(artifact)
        ended = dies_at(number, partial(work, artifact))
        yield number, Artifact(artifact.path, KEY)
        if ended:
            assert number > 3, "too few operations to be counted"
            return
    pytest.fail("the work never came to its end")


def worked(artifact: Artifact) -> None:
    """A folder in which everything has been made but the record."""
    out = artifact.begin()
    (out / "sub").mkdir()
    (out / "sub" / "weights").write_text("weights")
    (out / "judgements.jsonl").write_text("verdicts")
    mark = out / "checkpoints" / "checkpoint-9" / "complete"
    mark.parent.mkdir(parents=True)
    mark.write_text("")


def finished_with_holes(artifact: Artifact) -> None:
    worked(artifact)
    artifact.finish({"kind": "evaluate", "metrics": {MISSING_GRADES: 1}})


def holds_work(folder: Path) -> bool:
    return (
        (folder / "sub" / "weights").read_text() == "weights"
        and (folder / "judgements.jsonl").read_text() == "verdicts"
        and (folder / "checkpoints" / "checkpoint-9" / "complete").is_file()
    )


def assert_finished(artifact: Artifact) -> None:
    assert artifact.is_complete()
    names = sorted(str(file.relative_to(artifact.path)) for file in artifact.path.rglob("*") if file.is_file())
    assert names == ["artifact.json", "judgements.jsonl", "sub/weights"]
    assert sorted(artifact.record["files"]) == names[1:]
    assert not artifact.partial.exists()


def test_begin_killed_anywhere(tmp_path: Path) -> None:
    for _, artifact in kills(tmp_path, lambda _: None, lambda artifact: artifact.begin()):
        artifact.recover()
        assert not artifact.is_done()
        worked(artifact)
        artifact.finish({"metrics": {}})
        assert_finished(artifact)


def test_finish_killed_anywhere_loses_no_work(tmp_path: Path) -> None:
    seen = set()
    for _, artifact in kills(tmp_path, worked, lambda artifact: artifact.finish({"metrics": {"loss": 1.0}})):
        assert artifact.path.is_dir() or holds_work(artifact.partial)  # checkpoints go when the result is in place
        artifact.recover()
        seen.add(artifact.is_done())
        if not artifact.is_done():
            assert artifact.has_begun()
            artifact.begin()
            assert holds_work(artifact.partial)
            artifact.finish({"metrics": {"loss": 1.0}})
        assert_finished(artifact)
        assert artifact.record["metrics"] == {"loss": 1.0}
    assert seen == {True, False}


def test_reopen_killed_anywhere_loses_no_verdict_and_no_answer(tmp_path: Path) -> None:
    for _, artifact in kills(tmp_path, finished_with_holes, lambda artifact: artifact.reopen()):
        artifact.recover()
        if artifact.is_done():
            assert artifact.lacks_grades()
            artifact.reopen()
        assert artifact.has_begun()
        artifact.begin()
        assert holds_work(artifact.partial)
        assert not (artifact.partial / "artifact.json").exists()
        artifact.abandon()  # the judge is silent once more
        assert holds_work(artifact.partial)
        artifact.finish({"metrics": {}})
        assert_finished(artifact)


def test_finish_of_what_was_reopened_killed_anywhere(tmp_path: Path) -> None:
    def reopened(artifact: Artifact) -> None:
        finished_with_holes(artifact)
        artifact.reopen()

    for _, artifact in kills(tmp_path, reopened, lambda artifact: artifact.finish({"metrics": {}})):
        artifact.recover()
        if not artifact.is_done():
            assert holds_work(artifact.begin())
            artifact.finish({"metrics": {}})
        assert_finished(artifact)


def test_abandon_and_remove_killed_anywhere_leave_what_can_be_made_again(tmp_path: Path) -> None:
    def failed(artifact: Artifact) -> None:
        (artifact.begin() / "half").write_text("h")
        (artifact.partial / "more").mkdir()

    for _, artifact in kills(tmp_path / "a", failed, lambda artifact: artifact.abandon()):
        artifact.recover()
        artifact.begin()
    for _, artifact in kills(
        tmp_path / "b", lambda one: (worked(one), one.finish({"metrics": {}})), lambda one: one.remove()
    ):
        artifact.recover()
        if artifact.is_done():
            assert_finished(artifact)
        else:
            artifact.begin()
            (artifact.partial / "x").write_text("x")
            artifact.finish({"metrics": {}})
            assert artifact.is_complete()


@pytest.mark.parametrize("claim", ["", "{", "[]", "null", '{"key": 5}', b"\xff\xfe", None])
def test_a_claim_that_cannot_be_read_ends_nothing(tmp_path: Path, claim: str | bytes | None) -> None:
    """Of a run's step the folder's name says whose work it is; of another place that work begins anew."""
    for name, kept in ((f"distill-{KEY}", True), ("mine", False)):
        artifact = Artifact(tmp_path / name, KEY)
        worked(artifact)
        file = artifact.partial / "unfinished.json"
        if claim is None:
            file.unlink()
        else:
            file.write_bytes(claim if isinstance(claim, bytes) else claim.encode())
        artifact.recover()
        out = artifact.begin()
        assert json.loads((out / "unfinished.json").read_text()) == {"key": KEY}
        assert (out / "judgements.jsonl").exists() is kept


def test_a_finished_result_that_was_not_put_in_place_is_never_removed(tmp_path: Path) -> None:
    from prunus.errors import ArtifactError

    artifact = Artifact(tmp_path / "made", KEY)
    worked(artifact)
    artifact.finish({"metrics": {}})
    artifact.path.rename(artifact.partial)
    other = Artifact(tmp_path / "made", "0000000b")
    with pytest.raises(ArtifactError, match="holds the result of other settings"):
        other.begin()
    artifact.recover()
    assert_finished(artifact)
