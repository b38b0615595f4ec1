"""docs/peers.md, and what other pages say about the peers, from the committed records."""
import json
import statistics

import peer_rows
from paired import difference, unpack
from peer_rows import TASKS
from project import ROOT, write
from tasks import interval

OUT = ROOT / "docs/peers.md"
TRAINING = ROOT / "docs/training.md"
NAMES = {
    "tfidf-svc": "TF-IDF, LinearSVC", "tfidf-regression": "TF-IDF, logistic regression", "fasttext": "fastText", "fasttext-3mb": "fastText, 3 MB",
    "fasttext-1mb": "fastText, 1 MB", "model2vec": "model2vec, its classifier", "model2vec-regression": "model2vec, regression",
    "model2vec-int8-regression": "model2vec, int8, 96 values, regression", "teacher-regression": "MiniLM, frozen, regression",
    "kinglet-soft": "Kinglet, encoder-en, task teacher", "kinglet-small-soft": "Kinglet, encoder-en-small, task teacher",
    "kinglet": "Kinglet, encoder-en", "kinglet-small": "Kinglet, encoder-en-small",
}
DISTILLED = ("kinglet-soft", "kinglet-small-soft", "kinglet", "kinglet-small")
# What docs/training.md says of few labels: the rows of its table, and its columns.
FEW = {"from `encoder-en-small`, int8": "kinglet-small", "from `encoder-en`, int8": "kinglet",
       "from `encoder-en-small` with a [task teacher](#from-few-labels), int8": "kinglet-small-soft",
       "from `encoder-en` with a task teacher, int8": "kinglet-soft"}
FEW_TASKS = ("trec_500", "clinc150_1500", "ag_news_500", "sst2_500")
# Too large for what Kinglet runs on: it is in the tables as the source of the distilled ones.
LARGE = "teacher-regression"
OURS = {"scratch": "Kinglet, from scratch", "pre-trained": "Kinglet, pre-trained"}


def ours(task):
    """Returns accuracy and bytes of our models of a task by name; bytes are `None` where no model was exported.

    From scratch: the best convolution, int8, one seed. Pre-trained: light, before export, mean of the seeds.
    """
    found = {}
    runs = [json.loads(file.read_text()) for file in sorted((ROOT / "docs/results").glob(f"run-{task}-*.json"))]
    if runs := [run for run in runs if run["task"] == task and run["mixer"] != "attention"]:
        best = max(runs, key=lambda run: run["accuracy_int8"])
        found["scratch"] = best["accuracy_int8"], best["bytes_int8"]
    rows = json.loads((ROOT / "docs/results/pretrained.json").read_text())["runs"]
    if values := [row["accuracy"] for row in rows if (row["task"], row["mixer"], row["start"]) == (task, "light", "pre-trained")]:
        found["pre-trained"] = statistics.mean(values), None
    return found


def setting(record):
    """The setting of fastText as a table shows it."""
    chosen = record["setting"]
    subwords = f", characters {chosen['subwords']['minn']}–{chosen['subwords']['maxn']}" if chosen["subwords"]["maxn"] else ""
    return f"lr {chosen['lr']}, {chosen['epoch']} epochs, {chosen['wordNgrams']}-grams{subwords}"


def tfidf(records):
    """Returns the better of the two linear models on TF-IDF, if there is one."""
    found = [records[peer] for peer in ("tfidf-svc", "tfidf-regression") if peer in records]
    return max(found, key=lambda record: record["accuracy"], default=None)


def percent(value):
    return f"{100 * value:.1f}"


def table(tasks, values, shown):
    """Rows of models, columns of tasks; `values[name][task]` where it is known, as `shown(name, task, value)`."""
    lines = ["| | " + " | ".join(TASKS[task].title for task in tasks) + " |", "|---|" + "---:|" * len(tasks)]
    for name, title in (NAMES | OURS).items():
        cells = [shown(name, task, values[name][task]) if task in values[name] else "–" for task in tasks]
        if set(cells) != {"–"}:
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def accuracies(every, tasks):
    """The table of accuracies; the best model of a task is bold, MiniLM apart."""
    values = {peer: {task: every[task][peer]["accuracy"] for task in tasks if peer in every[task]} for peer in NAMES}
    values |= {name: {task: ours(task)[name][0] for task in tasks if name in ours(task)} for name in OURS}
    small = lambda task: [by[task] for name, by in values.items() if name != LARGE and task in by]
    marks = lambda record: ("¹" if len(record["runs"]) == 1 else "") + ("" if record["trained"].get("ngrams") else "²")
    one = lambda name, task: marks(every[task][name]) if name in DISTILLED else ""
    bold = lambda name, task, value: (f"**{percent(value)}**" if value == max(small(task)) else percent(value)) + one(name, task)
    half = lambda task: interval(max(small(task)), next(iter(every[task].values()))["dev_rows"]) if every[task] else "–"
    return [*table(tasks, values, bold), "| *± of the best* | " + " | ".join(map(half, tasks)) + " |"]


def sizes(every, tasks):
    """The table of sizes."""
    values = {peer: {task: every[task][peer]["bytes"] for task in tasks if peer in every[task]} for peer in NAMES}
    values |= {name: {task: size for task in tasks for _, size in [ours(task).get(name, (0, None))] if size} for name in OURS}
    return table(tasks, values, lambda _, __, value: f"{value / 1e6:.1f}")


def beside(every):
    """The table of differences between our distilled models and the best of the small peers, on the same texts; nothing without records."""
    lines, shown = [], [name for name in DISTILLED if any(name in records for records in every.values())]
    for task, records in every.items():
        peers = {name: record for name, record in records.items() if name not in (LARGE, *DISTILLED)}
        if not peers:
            continue
        best = max(peers, key=lambda name: peers[name]["accuracy"])
        theirs = [unpack(run["right"], peers[best]["dev_rows"]) for run in peers[best]["runs"]]
        cells = []
        for name in shown:
            if name not in records:
                cells.append("–")
                continue
            ours = [unpack(run["right"], records[name]["dev_rows"]) for run in records[name]["runs"]]
            mean, half = difference(ours, theirs)
            cells.append(f"{100 * mean:+.1f} ± {100 * half:.1f}")
        if set(cells) != {"–"}:
            lines.append(f"| {TASKS[task].title} | {NAMES[best]}, {percent(peers[best]['accuracy'])} | " + " | ".join(cells) + " |")
    if not lines:
        return []
    head = ["## Differences on the same texts", "",
            "Kinglet's accuracy less that of the best small peer measured, in points, with the paired 95% interval:", "",
            "| | best small peer | " + " | ".join(NAMES[name].removeprefix("Kinglet, ") for name in shown) + " |", "|---|---|" + "---:|" * len(shown)]
    return [*head, *lines, ""]


def page():
    """Returns docs/peers.md from the records."""
    every = {task: peer_rows.records(task) for task in TASKS}
    few, whole = [task for task in TASKS if TASKS[task].rows], [task for task in TASKS if not TASKS[task].rows]
    versions = {name: version for records in every.values() for record in records.values() for name, version in record["versions"].items()}
    lines = [
        "# Peers", "",
        "What other small text classifiers reach on the rows that Kinglet's models are trained on: dev accuracy in percent, mean of three seeds",
        "where a peer is random. `research/peers.py` makes this page from `docs/results/peers/`.", "",
        *accuracies(every, few), "", *accuracies(every, whole), "",
        "**Bold**: the best of a task, the frozen MiniLM apart. –: not measured. ¹: one seed. ²: without n-grams. *±* is the 95% interval of one accuracy,",
        "1.96·√(a(1−a)/n). Two models on the same texts are compared more closely by the paired interval of `research/paired.py`, for which the",
        "records say which texts were answered correctly.", "",
        "Kinglet's models keep the epoch that is best on dev, and fastText the setting, so these numbers are slightly optimistic. The other peers",
        "choose on training rows: by 5-fold cross-validation up to 2,000 rows, else on a held-out tenth (SST-2: of the sentences, without their",
        "phrases).", "",
        "- **TF-IDF**: words 1–2 and characters 2–5 within words, sublinear term frequencies; C of LinearSVC or of one logistic regression per class.",
        "- **fastText**: ten threads, 100 values; learning rate, epochs, word n-grams, and characters 2–5 or none. *3 MB* and *1 MB* are its models,",
        "  pruned, retrained and quantized to at most that size.",
        "- **model2vec**: its own distillation of all-MiniLM-L6-v2 (256 values, f16), with its classifier, which trains the embeddings as well,",
        "  or logistic regression on the frozen vectors; small: the first 96 values in int8.",
        "- **MiniLM**: all-MiniLM-L6-v2 itself, frozen, with logistic regression. Too large for most of Kinglet's targets.",
        "- **Kinglet, encoder-en** and **encoder-en-small**: fine-tuned from the encoder in `models/` distilled from all-MiniLM-L6-v2, with",
        "  [n-grams beside the network](training.md#n-grams-beside-the-network), exported to int8, three seeds, unless marked.",
        "  `research/distilled.py` makes these records. *Task teacher*: a teacher's soft labels of other texts were learnt as well, which no",
        "  other peer saw; none equals a training text of a task. With few labels, and for Banking77 and CLINC150: the 100,000",
        "  texts of a free pool of which a regression on MiniLM's vectors and on words, fitted to the same training rows, is surest (CLINC150: and",
        "  20,000 of the others; [Training](training.md#from-few-labels)). For all rows of the others: the training texts and more of their",
        "  kind (questions, 300,000 sentences of unlabelled film reviews, news), labelled by MiniLM fine-tuned on the same rows",
        "  ([Training](training.md#from-many-labels)).",
        "- **Kinglet**: from scratch, the best convolution of [Results](results.md) in int8, one seed; pre-trained, light from the shipped encoder",
        "  ([Pre-training](pretraining.md)), before export.", "",
        *beside(every),
        "## Sizes", "",
        "Megabytes of what a program loads: the pickle of scikit-learn's models with coefficients in f32, fastText's `.bin` or `.ftz`, weights and",
        "tokenizer of the embeddings together with their classifier, Kinglet's int8 model.", "",
        *sizes(every, few), "", *sizes(every, whole), "",
        "![Accuracy against size](results/peers.svg)", "",
        "## Reproduce", "", "```sh", "tools/x research peers   # needs KINGLET_DATA; resumes, and skips what is recorded", "```", "",
        "Settings tried, seeds and sizes are in the records. Versions: " + ", ".join(f"{name} {versions[name]}" for name in sorted(versions)) + ".",
    ]
    return "\n".join(lines) + "\n"


def training():
    """Returns docs/training.md with what the records say of few labels."""
    records = {task: peer_rows.records(task) for task in FEW_TASKS}
    shown = lambda task, peer: percent(records[task][peer]["accuracy"]) if peer in records[task] else "–"
    new = {title: f"| {title} | " + " | ".join(shown(task, peer) for task in FEW_TASKS) + " |" for title, peer in FEW.items()}
    lines = TRAINING.read_text().splitlines()
    return "\n".join(new.get(line.split(" | ")[0].removeprefix("| "), line) for line in lines) + "\n"


def write_page():
    write(OUT, page())
    write(TRAINING, training())
