"""Tasks of EleutherAI's lm-evaluation-harness, on a loaded model and optionally on local copies of their data."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedModel

from prunus import distributed
from prunus.console import Console
from prunus.errors import DataError, HubError, NotFiniteError
from prunus.steps.evaluate.config import EvaluateConfig, TaskConfig
from prunus.steps.evaluate.rows import local_parts
from prunus.steps.evaluate.summary import CHANCE, Row
from prunus.steps.evaluate.tasks import DERIVED, HARNESS
from prunus.verify.skill import Scores

_SHORT = 512  # tokens of context up to which the harness's default answer length, 256, leaves no room for a question
_FILTERS = ("strict-match", "none", "create_test")  # preferred filters, if a task has several


@dataclass(frozen=True)
class Harness:
    """Runs tasks of the harness on a model.

    Attributes:
        model: The loaded model.
        tokenizer: Its tokenizer.
        context: Its maximum sequence length in tokens.
        out: The step's folder; answers are stored there until the step is done, so that none is computed twice.
        batch_size: Requests at a time; the harness groups those of similar length.
    """

    model: PreTrainedModel
    tokenizer: Any
    context: int
    out: Path
    batch_size: int

    def run(self, name: str, task: TaskConfig, config: EvaluateConfig, console: Console) -> list[Row]:
        """The scores of each item of a task. The processes share the work; only the first gets the rows.

        Raises:
            DataError: Its data cannot be used, the harness fails on it, or none of its metrics is a mean over items.
            HubError: The hub does not provide its data.
        """
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        from prunus.steps.evaluate.harness_model import HarnessModel

        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        kind = task.kind or name
        known = HARNESS.get(kind)
        shots = task.num_fewshot if task.num_fewshot is not None else known.num_fewshot if known else None
        folder = self.out / "checkpoints" / f"harness-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        if task.data is not None:
            tasks = list(_local_tasks(kind, task.data, folder, f"tasks.{name}"))
            distributed.wait()  # until they are written
            manager = TaskManager(include_path=str(folder), include_defaults=False)
        else:
            tasks, manager = [kind], TaskManager()
        model = HarnessModel(self.model, self.tokenizer, self.context, self.batch_size, name, console)
        if distributed.count() > 1:
            _join(model)
        if config.run_code:
            os.environ["HF_ALLOW_CODE_EVAL"] = "1"  # the metric requires this as well
        (folder / "complete").touch()  # marks the unfinished step as resumable
        try:
            with _silenced():
                found = simple_evaluate(
                    model=model, tasks=tasks, num_fewshot=shots, limit=task.limit, use_cache=str(folder / "answers"),
                    task_manager=manager, bootstrap_iters=0, log_samples=True, random_seed=config.seed,
                    fewshot_random_seed=config.seed, confirm_run_unsafe_code=config.run_code,
                    gen_kwargs={"max_gen_toks": self.context // 2} if self.context <= _SHORT else None,
                )  # fmt: skip
        except NotFiniteError:  # a fault of the model, not of the task
            raise
        except (OSError, ConnectionError) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise  # a full disk is not the task's fault
            raise HubError(f"tasks.{name}: cannot get its data; give `data`, a local copy: {error}") from None
        except Exception as error:  # tasks are third-party code; the other tasks must still run
            raise DataError(f"tasks.{name}: lm-evaluation-harness: {type(error).__name__}: {error}") from error
        if found is None:
            return []  # only the first process gets results
        rows = [
            row
            for part, samples in found["samples"].items()
            for row in rows_of(kind, part, samples, found["results"].get(part, {}))
        ]
        if rows and not any(row["scores"] for row in rows):
            raise DataError(f"tasks.{name}: none of the harness's metrics is a mean over items, or derived from one")
        return rows


def _join(model: Any) -> None:
    """Let the harness distribute its requests over the processes; for a loaded model it assumes a single one."""
    from accelerate import Accelerator

    model.accelerator = Accelerator(cpu=model.model.device.type == "cpu")
    model._rank, model._world_size = distributed.rank(), distributed.count()


@contextmanager
def _silenced() -> Iterator[None]:
    """Suppress stderr: the harness's progress bars and output of child processes. Errors are raised as exceptions."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)


def rows_of(kind: str, part: str, samples: list[dict[str, Any]], reported: dict[str, Any]) -> list[Row]:
    """The harness's scores of each item, for the relevant metrics.

    Not every metric of the harness is a mean over items (F1 and correlations are not). Only those are kept whose mean,
    or the figure that `DERIVED` computes from it, equals the harness's result.

    Args:
        kind: The task.
        part: The harness's name of the task or of a part of it.
        samples: Its items, once for each filter.
        reported: The harness's results, by `METRIC,FILTER`.
    """
    filters = [sample["filter"] for sample in samples]
    chosen = next((one for one in (*_FILTERS, *filters) if one in filters), None)
    group = part.removeprefix("prunus_").removeprefix(f"{kind}_") if part not in (f"prunus_{kind}", kind) else None
    rows: list[Row] = []
    for sample in sorted(
        samples, key=lambda sample: int(sample["doc_id"])
    ):  # an order that does not depend on the number of processes
        if sample["filter"] == chosen:
            answer = {"answer": sample["filtered_resps"][0]} if isinstance(sample["filtered_resps"][0], str) else {}
            rows.append({"id": f"{part}-{sample['doc_id']}", "group": group, "scores": _scores(kind, sample), **answer})
    metrics = {key.removesuffix(f",{chosen}"): value for key, value in reported.items() if key.endswith(f",{chosen}")}
    wrong = _no_means(rows, metrics)
    return [
        {**row, "scores": {name: pair for name, pair in row["scores"].items() if name not in wrong}} for row in rows
    ]


def _scores(kind: str, sample: dict[str, Any]) -> Scores:
    """The scores of one item."""
    scores: Scores = {}
    for name in HARNESS[kind].metrics if kind in HARNESS else sample["metrics"]:
        pair = _score(name, sample.get(name))
        if pair is not None:
            scores[DERIVED[name].mean if name in DERIVED else name] = pair
    if len(sample["resps"]) > 1 and {"acc", "acc_norm"} & scores.keys():  # one response per choice
        scores[CHANCE] = (1 / len(sample["resps"]), 1.0)
    return scores


def _score(metric: str, value: Any) -> tuple[float, float] | None:
    """An item's (sum, count), or None if the harness's value cannot be converted.

    The values of `DERIVED` metrics are a log-likelihood, or a pair of it and the number of words or bytes.
    """
    total, count = value if isinstance(value, (tuple, list)) and metric in DERIVED and len(value) == 2 else (value, 1)
    if not isinstance(total, (int, float)) or not isinstance(count, (int, float)):
        return None
    return (-float(total), float(count)) if metric in DERIVED else (float(total), float(count))


def _no_means(rows: list[Row], reported: dict[str, Any]) -> set[str]:
    """The metrics whose result in the harness differs from the mean over items, and from the figure derived from it."""
    found = set()
    for name, figure in reported.items():
        derived = DERIVED.get(name)
        metric = derived.mean if derived else name
        pairs = [row["scores"][metric] for row in rows if metric in row["scores"]]
        count = sum(pair[1] for pair in pairs)
        if not count or not isinstance(figure, (int, float)):
            continue
        mean = sum(pair[0] for pair in pairs) / count
        if not math.isclose(derived.value(mean) if derived else mean, figure, rel_tol=1e-6, abs_tol=1e-9):
            found.add(metric)
    return found


def _local_tasks(kind: str, data: str, folder: Path, where: str) -> Iterator[str]:
    """Write the harness's task, or each part of it, with local rows as its data. Returns the names."""
    for part, rows, shown in local_parts(kind, data, where):
        yield _write_task(kind, part, folder, rows, shown)


def _write_task(kind: str, part: str, folder: Path, rows: list[Row], shown: list[Row]) -> str:
    name = f"prunus_{kind}" + (f"_{part}" if part else "")
    files = {"test": _write(rows, folder / f"{name}.test.jsonl")}
    if shown:
        files["dev"] = _write(shown, folder / f"{name}.dev.jsonl")
    task: dict[str, Any] = {
        "include": str(_definition(kind, part)), "task": name, "tag": [], "dataset_path": "json", "dataset_name": None,
        "dataset_kwargs": {"data_files": files}, "training_split": None, "validation_split": None,
        "test_split": "test", "fewshot_split": "dev" if shown else "test",
    }  # fmt: skip
    if distributed.rank() == 0:
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return name


def _write(rows: list[Row], file: Path) -> str:
    if distributed.rank() == 0:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def _definition(kind: str, part: str) -> Path:
    """The file of the harness's definition of a task."""
    import lm_eval.tasks

    known = HARNESS.get(kind)
    if known and known.definition:
        return Path(lm_eval.tasks.__file__).parent / known.definition.format(part=part)
    index = lm_eval.tasks.TaskManager().task_index
    return Path(index[kind]["yaml_path"] if isinstance(index[kind], dict) else index[kind].yaml_path)
