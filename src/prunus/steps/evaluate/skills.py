"""Runs a skill: from its items to their scores; answers are stored for reading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prunus import distributed
from prunus.console import Console
from prunus.inference.answers import Answer
from prunus.judging.judge import SAVED, Judge
from prunus.judging.prompts import JudgePrompt, filled, judge_prompts
from prunus.steps.evaluate.answers import Answerer, transcript
from prunus.steps.evaluate.config import EvaluateConfig, TaskConfig
from prunus.steps.evaluate.items import Item, read_items
from prunus.steps.evaluate.scoring import score
from prunus.steps.evaluate.summary import Row

Answers = list[list[list[Answer]]]
"""Answers as [items][samples][turns]."""
JUDGE = "evaluate.judge"


def run_skill(
    name: str, task: TaskConfig, config: EvaluateConfig, answerer: Answerer, console: Console
) -> tuple[list[Row], dict[str, Any]]:
    """Answer and check every item of a skill; write `answers/NAME.jsonl`. Only the first process queries the judge.

    Returns:
        The scores of each item, and the judge's tally, if a check needs a judge.

    Raises:
        DataError: Items cannot be read, or the chat template refuses one.
    """
    skill, where = task.kind or name, f"tasks.{name}"
    items = read_items(task, skill, where)
    answers = answerer.answer(name, items, task, config, console)
    scores = [score(item, skill, samples, where) for item, samples in zip(items, answers, strict=True)]
    rows: list[Row] = [{"id": i.id, "group": i.group, "scores": s} for i, s in zip(items, scores, strict=True)]
    facts: dict[str, Any] = {}
    if distributed.rank():
        return rows, facts
    if any(item.check.get("judge") for item in items):
        judge = Judge(config.judge, answerer.out / SAVED, JUDGE)
        grades = judge.grade(dict(questions(items, answers, judge_prompts(config.judge, JUDGE))), console)
        facts["judge"] = asdict(judge.tally)
        for i, row in enumerate(rows):
            row["scores"] |= _graded({place[1:]: grade for place, grade in grades.items() if place[0] == i})
    _save(name, items, answers, rows, answerer.out / "answers")
    return rows, facts


def questions(
    items: list[Item], answers: Answers, prompts: dict[str, JudgePrompt]
) -> Iterator[tuple[tuple[int, int, int], JudgePrompt]]:
    """The judge's prompt for each answer that needs a grade, by (item, sample, turn)."""
    for i, item in enumerate(items):
        if not item.check.get("judge"):
            continue
        for sample, turns in enumerate(answers[i]):
            for turn, (user, replies) in enumerate(transcript(item, turns)):
                yield (i, sample, turn), filled(prompts, user, replies, item.check.get("reference"))


def _graded(grades: dict[tuple[int, int], float]) -> dict[str, tuple[float, float]]:
    """The grades of an item as (sum, count), overall and for each turn; empty if there are none."""
    scores = {}
    if grades:
        scores["judge"] = (sum(grades.values()), float(len(grades)))
    for turn in sorted({turn for _, turn in grades}):
        of_turn = [grade for (_, at), grade in grades.items() if at == turn]
        scores[f"judge_turn_{turn + 1}"] = (sum(of_turn), float(len(of_turn)))
    return scores


def _save(name: str, items: list[Item], answers: Answers, rows: list[Row], folder: Path) -> None:
    """Write the user's messages and all answers, one line per item."""
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.jsonl").open("w", encoding="utf-8", errors="replace") as file:
        for item, samples, row in zip(items, answers, rows, strict=True):
            user = [message["content"] for message in item.messages if message["role"] == "user"][-1:] + item.then
            line = {
                **row,
                "said": user,
                "answers": [[answer.text for answer in turns] for turns in samples],
                "finish": [[answer.finish for answer in turns] for turns in samples],
            }
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
