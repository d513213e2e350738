"""Training of the built-in teacher: loss curves and held-out scores of runs, as figures and as a picture.

python benchmarks/sapling.py runs/sapling --scores scores/sapling \
    --json benchmarks/results/sapling.json --svg docs/sapling.svg

Stages are drawn one after the other over all tokens; a stopped stage is drawn as far as it got. Scores are those of an
evaluation, such as that of `builtin:sapling`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from curves import standalone

from prunus.report.charts import Series, line_chart

_POINTS = 100  # of a curve that are kept
_WANTED = ("prompt_strict", "consistent", "manner", "exact", "right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="the folders of the runs, in order of time")
    parser.add_argument("--scores", type=Path, help="the folder of an evaluation")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--svg", type=Path, help="draw the losses here")
    options = parser.parse_args()
    kept: dict[str, Any] = {"stages": {}, "scores": scores(options.scores) if options.scores else {}}
    for run in options.runs:
        for folder in sorted((run / "teacher").glob("correct-*")) + sorted((run / "teacher").glob("align-*")):
            kept["stages"][f"{run.name}, {folder.name.rsplit('-', 1)[0]}"] = stage(folder)
    for name, facts in kept["stages"].items():
        print(
            f"{name:30} {facts['tokens']:>10,} tokens {facts['seconds'] or 0:>7,.0f} s  loss {facts['loss'][-1][1]:.3f}"
        )
    for name, score in kept["scores"].items():
        print(f"{name:40} {score['value']:6.1%}  [{score['low']:.1%}, {score['high']:.1%}]  of {score['items']} items")
    if options.json:
        options.json.write_text(json.dumps(kept, indent=2) + "\n")
    if options.svg:
        options.svg.write_text(standalone(drawn(kept["stages"]), list(kept["stages"])))


def stage(folder: Path) -> dict[str, Any]:
    """A stage's tokens, seconds, hardware and curve of losses by tokens, each the mean since the last point."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    points = [(line["tokens"], line["loss"]) for line in lines if "loss" in line]
    width = max(1, len(points) // _POINTS)
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    whole = folder / "artifact.json"
    record = json.loads(whole.read_text()) if whole.is_file() else {}  # none where it was cut off
    return {
        "tokens": points[-1][0],
        "seconds": record.get("seconds"),
        "hardware": record.get("hardware"),
        "config": record.get("config"),
        "loss": [[group[-1][0], sum(loss for _, loss in group) / len(group)] for group in groups],
    }


def drawn(stages: dict[str, dict[str, Any]]) -> str:
    """The curves, one behind the other."""
    series, before = [], 0
    for name, facts in stages.items():
        series.append(Series(name, [(before + tokens, loss) for tokens, loss in facts["loss"]]))
        before += facts["tokens"]
    return line_chart(series, "tokens", "loss, nats per counted token", log_y=True)


def scores(folder: Path) -> dict[str, dict[str, Any]]:
    """Held-out scores, every metric of right and wrong with its interval."""
    tasks = json.loads((folder / "results.json").read_text())["tasks"]
    return {
        f"{name} ({metric})": task["metrics"][metric]
        for name, task in tasks.items()
        for metric in _WANTED
        if metric in task["metrics"]
    }


if __name__ == "__main__":
    main()
