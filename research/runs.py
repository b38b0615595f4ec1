"""What the comparisons with peers share: their runs on disk, the rows of a set, and TF-IDF."""
import json
import pathlib
import platform
from importlib import metadata

import paired
import project
from project import capture, data, program

PACKAGES = {"fasttext": ["fasttext-wheel"], "tfidf": ["scikit-learn"]}


class Runs:
    """The runs of a comparison: a file per task in a folder, of one object per peer, of runs by seed."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def of(self, task):
        """Returns the runs of a task."""
        path = self.folder / f"{task}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def keep(self, task, peer, seed, run):
        """Adds a run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        every = self.of(task)
        every.setdefault(peer, {})[str(seed)] = run
        sorted_runs = {peer: dict(sorted(runs.items())) for peer, runs in sorted(every.items())}
        project.write(self.folder / f"{task}.json", json.dumps(sorted_runs, indent=1) + "\n")


def files(task):
    """Returns the training and the dev file of a set."""
    return [f"{data(task)}/{part}.jsonl.zst" for part in ("train", "dev")]


def lines(task):
    """Returns the objects of both files."""
    return [[json.loads(line) for line in project.lines(name)] for name in files(task)]


def rows(task):
    """Returns texts and labels of both files."""
    return [([line["text"] for line in part], [str(line["label"]) for line in part]) for part in lines(task)]


def answered(right):
    """Returns what a record says of the answers to the dev rows, each right or not."""
    right = [bool(value) for value in right]
    return {"accuracy": sum(right) / len(right), "rows": len(right), "right": paired.pack(right)}


def tfidf(task, _seed):
    """TF-IDF of words and characters with LinearSVC, C chosen on dev; Python's own words in languages with spaces."""
    import numpy as np
    from peer_linear import TFIDF, shipped, vectorizer

    (texts, labels), (dev_texts, dev_labels) = rows(task)
    make, grid = TFIDF["tfidf-svc"]
    features = vectorizer()
    left, right = features.fit_transform(texts), features.transform(dev_texts)
    found = []
    for c in grid:
        model = make(c).fit(left, labels)
        correct = model.predict(right) == np.asarray(dev_labels)
        found.append((float(np.mean(correct)), -c, model, correct))
    _, c, model, correct = max(found, key=lambda one: one[:2])
    return {**answered(correct), "bytes": shipped(features, model), "setting": {"C": -c}}


def versions(peer):
    """Returns the versions of Kinglet, or of Python and a peer's packages."""
    if peer not in PACKAGES:
        return {"kinglet": capture(program("kinglet-train"), "--version").stdout.split()[-1]}
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES[peer]}}
