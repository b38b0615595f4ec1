"""docs/results/peers.svg: accuracy of peers and of our models against their size, one panel per task."""
import io
import re

import matplotlib

import peer_page
import peer_rows
from peer_page import NAMES, OURS
from project import ROOT, write

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: E402

OUT = ROOT / "docs/results/peers.svg"
# Colours of the trainer's plots.
KINGLET = "#d62728"
FAMILIES = {"tfidf": ("o", "#1f77b4"), "fasttext": ("s", "#2ca02c"), "model2vec": ("D", "#9467bd"), "teacher": ("^", "#ff7f0e"), "kinglet": ("*", KINGLET)}


def look(peer):
    """Marker, colour and fill of a peer: filled for the first of its family, lighter for the others."""
    family = peer.split("-")[0]
    marker, colour = FAMILIES[family]
    rank = [name for name in NAMES if name.split("-")[0] == family].index(peer)
    return {"marker": marker, "color": colour, "alpha": max(0.3, 1 - 0.25 * rank), "linestyle": "none", "markersize": 11 if marker == "*" else 6}


def draw(axis, task):
    records = peer_rows.records(task)
    for peer in NAMES:
        if peer in records:
            axis.plot([records[peer]["bytes"] / 1e6], [100 * records[peer]["accuracy"]], label=NAMES[peer], **look(peer))
    for name, (accuracy, size) in peer_page.ours(task).items():
        if size is None:
            axis.axhline(100 * accuracy, color=KINGLET, linestyle="--", linewidth=1, label=f"{OURS[name]} (not exported)")
        else:
            axis.plot([size / 1e6], [100 * accuracy], marker="P", color=KINGLET, linestyle="none", markersize=7, label=OURS[name])
    axis.set(title=peer_rows.TASKS[task].title, xscale="log", xlim=(0.5, 2000))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(color="black", alpha=0.1, linewidth=0.5)


def write_figure():
    """Draws the tasks that have records; the same records give the same bytes."""
    matplotlib.rcParams.update({"svg.hashsalt": "peers", "font.size": 9, "axes.titlesize": 10, "svg.fonttype": "none", "font.family": "sans-serif"})
    shown = [task for task in peer_rows.TASKS if peer_rows.records(task)]
    rows = -(-(len(shown) + 1) // 3)
    figure, axes = pyplot.subplots(rows, 3, figsize=(11, 3 * rows), layout="constrained", squeeze=False)
    legend = {}
    for axis, task in zip(axes.flat, shown):
        draw(axis, task)
        legend |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels())}
    for axis in axes.flat[len(shown):]:
        axis.axis("off")
    axes.flat[-1].legend(legend.values(), legend.keys(), loc="center", frameon=False)
    figure.supxlabel("size in MB")
    figure.supylabel("dev accuracy in percent")
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    # Names of clip paths come from addresses in memory.
    names = {}
    write(OUT, re.sub(r"\bp[0-9a-f]{10}\b", lambda found: names.setdefault(found[0], f"p{len(names)}"), text.getvalue()))
