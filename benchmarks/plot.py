"""The plot in docs/benchmark.md."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.candidates import CANDIDATES
from benchmarks.comparison import BASE, Outcomes

PANELS = {
    "requests_per_s": "JSON at 32 connections: requests/s\n(more is better)",
    "cpu_us_per_event": "200 paced streams: CPU µs an event\n(less is better)",
    "bursts_per_s": "Bursts: streams of 200 events/s\n(more is better)",
    "kb_per_stream": "KB for each open stream\n(less is better)",
}


def draw(outcomes: Outcomes, path: Path) -> None:
    """Write a PNG to `path`: bars of each candidate's medians, without the upstream alone."""
    mpl.use("Agg")
    figure, panels = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    for panel, (name, title) in zip(panels.flat, PANELS.items(), strict=True):
        _draw_panel(panel, name, outcomes)
        panel.set_title(title, fontsize=10)
    figure.savefig(path, dpi=110)


def _draw_panel(panel: Axes, name: str, outcomes: Outcomes) -> None:
    medians = {key: outcome.median(name) for key, outcome in outcomes.items() if key != BASE}
    known = {key: value for key, value in medians.items() if value is not None}
    colours = ["tab:blue" if key == "ours" else "silver" for key in known]
    bars = panel.barh([CANDIDATES[key].title for key in known], list(known.values()), color=colours)
    panel.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=9)
    panel.margins(x=0.15)
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)
