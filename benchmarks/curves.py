"""Draw the curves of a recovery benchmark, and print its table again, from the figures that `recovery.py` wrote.

python benchmarks/curves.py benchmarks/results/recovery-stories260k-width.json docs/recovery-stories260k-width.svg
"""

from __future__ import annotations

import argparse
import json
from html import escape
from pathlib import Path

import numpy as np
from recovery import chosen, rows, show

from prunus.report.charts import DASHES, HEIGHT, SERIES, WIDTH, Series, line_chart

COLOURS = ("#8a2d5b", "#1b7f79", "#c8711a", "#3f63b5", "#6d8a1f", "#a3422b", "#5d4b9c", "#7a6a52")
_ROW = 18  # pixels of a line of the legend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path)
    parser.add_argument("svg", type=Path)
    options = parser.parse_args()
    kept = json.loads(options.json.read_text())
    asked = argparse.Namespace(**kept["options"])
    show(kept["runs"], asked)
    series = []
    for kind, share in rows(kept["runs"]):
        runs = chosen(kept["runs"], kind, share, asked.rates)
        means = np.mean([run["kl"] for run in runs], axis=0)
        name = kind if share == 1 else f"{kind}, {share:g} of the tokens"
        series.append(Series(name, list(zip(runs[0]["tokens"][1:], means[1:].tolist(), strict=True))))
    names = [line.name for line in series]
    options.svg.write_text(standalone(line_chart(series, "tokens", "KL to the teacher", log_y=True), names))


def standalone(chart: str, names: list[str]) -> str:
    """A chart of the report as a file of its own: with its colours, a white ground and a legend below."""
    body = chart[chart.index(">", chart.index("<svg")) + 1 : chart.index("</svg>")]
    for number, colour in enumerate(COLOURS[:SERIES]):
        body = body.replace(f"var(--series-{number})", colour)
    style = (
        "text{font:12px sans-serif;fill:#444}.grid{stroke:#ddd}.line{fill:none;stroke-width:2;stroke-linejoin:round}"
    )
    legend = []
    for i, name in enumerate(names):
        y = HEIGHT + _ROW * i + 8
        dash = f' stroke-dasharray="{DASHES[i // SERIES % len(DASHES)]}"' if i >= SERIES else ""
        legend.append(f'<line class="line" stroke="{COLOURS[i % SERIES]}"{dash} x1="56" x2="82" y1="{y}" y2="{y}"/>')
        legend.append(f'<text x="90" y="{y + 4}">{escape(name)}</text>')
    height = HEIGHT + _ROW * len(names) + 8
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}">'
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    return f"{head}<style>{style}</style>{ground}{body}{''.join(legend)}</svg>\n"


if __name__ == "__main__":
    main()
