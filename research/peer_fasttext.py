"""fastText, and its models quantized to a given size."""
import itertools
import json
import pathlib
import re
import tempfile

import fasttext

import peer_rows
import project

PACKAGES = ["fasttext-wheel", "numpy"]
# With one thread, version 0.9.2 gives start values to a tenth of its table only. Ten threads do not repeat exactly, hence seeds.
FIXED = {"dim": 100, "bucket": 200_000, "minCount": 1, "loss": "softmax", "thread": 10, "verbose": 0}
# Searched in three stages: the features with the last learning rate and number of epochs, then these two with the best features, then twice
# the last number of epochs, and so on for as long as that helps.
FEATURES = {"wordNgrams": [1, 2], "subwords": [{"minn": 0, "maxn": 0}, {"minn": 2, "maxn": 5}]}
STEPS = {"lr": [0.5, 1.0], "epoch": [25, 50]}
FEW = {"lr": [0.5, 1.0], "epoch": [50, 100]}
# Where an epoch is long, long trainings are left out: fastText is at its best there after few epochs. More n-grams need more buckets.
LONG = {"lr": [0.25, 0.5], "epoch": [5, 10]}
GRIDS = {"sst2": {"lr": [0.5, 1.0], "epoch": [10, 25]}, "ag_news": LONG, "imdb": LONG}
BUCKETS = {"ag_news": 2_000_000, "imdb": 2_000_000}
# As Kinglet's models keep their best evaluation on dev.
CHOSEN = "best on dev, seed 1"
# Bytes that a quantized model may have.
SIZES = {"fasttext-3mb": 3_000_000, "fasttext-1mb": 1_000_000}


def prepared(texts):
    """As fastText's own examples do: lower case, punctuation set apart."""
    return [" ".join(re.sub(r"([.!?,'/()\"`;:])", r" \1 ", text.lower()).split()) for text in texts]


class Trainer:
    """Trains on the rows of a task, which lie in a file as fastText reads them."""

    def __init__(self, task, texts, labels, folder):
        self.labels = len(set(labels))
        self.file = pathlib.Path(folder) / "train.txt"
        self.file.write_text("".join(f"__label__{label} {text}\n" for text, label in zip(texts, labels, strict=True)), encoding="utf-8")
        self.fixed = {**FIXED, "bucket": BUCKETS.get(task, FIXED["bucket"])}

    def train(self, setting, seed):
        options = {key: value for key, value in setting.items() if key != "subwords"} | setting["subwords"]
        return fasttext.train_supervised(str(self.file), **self.fixed, **options, seed=seed)

    def quantized(self, path, setting, limit):
        """Returns the model of `path` in at most `limit` bytes, with its size; `None` if none fits.

        It keeps as many words and n-grams as fit, and is retrained with them.
        """
        out = self.file.with_name("model.ftz")
        # A kept row has 50 bytes of codes, one of its norm, and its bucket's number or its word; a model has codebooks and one row per label.
        row = 51 + (10 if setting["wordNgrams"] > 1 or setting["subwords"]["maxn"] else 20)
        kept = (limit - 110_000 - 410 * self.labels) // row
        while kept > 256:
            model = fasttext.load_model(str(path))
            model.quantize(input=str(self.file), cutoff=kept, retrain=True, qnorm=True, lr=setting["lr"], epoch=setting["epoch"],
                           thread=self.fixed["thread"], verbose=0)
            model.save_model(str(out))
            size = out.stat().st_size
            if size <= limit:
                return model, size
            kept -= max(-(-(size - limit) // row), kept // 50)
        return None


def answers(model, texts):
    """Labels of texts. `model.f` is the compiled class: `model.predict` of this version breaks with NumPy 2."""
    found = (model.f.predict(text + "\n", 1, 0.0, "strict") for text in texts)
    return [int(answer[0][1].removeprefix("__label__")) if answer else None for answer in found]


def search(task, trainer, accuracy):
    """Returns the setting with the best accuracy, and all settings tried; each is kept in runs/peers as soon as it is known."""
    done = project.ROOT / f"runs/peers/fasttext-{task}.jsonl"
    done.parent.mkdir(parents=True, exist_ok=True)
    tried = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []

    def best(settings):
        for setting in settings:
            if all(one["setting"] != setting for one in tried):
                tried.append({"setting": setting, "dev": accuracy(trainer.train(setting, 1))})
                with open(done, "a", encoding="utf-8") as f:
                    f.write(json.dumps(tried[-1]) + "\n")
        return max(tried, key=lambda one: one["dev"])["setting"]

    grid = GRIDS.get(task, FEW if peer_rows.TASKS[task].rows else STEPS)
    start = {key: values[-1] for key, values in grid.items()}
    features = best({**start, **dict(zip(FEATURES, values))} for values in itertools.product(*FEATURES.values()))
    setting = best({**features, **dict(zip(grid, values))} for values in itertools.product(*grid.values()))
    while setting["epoch"] >= grid["epoch"][-1] and (longer := best([{**setting, "epoch": 2 * setting["epoch"]}])) != setting:
        setting = longer
    return setting, tried


def measure(task, wanted):
    """Yields the records of fastText and of its quantized models, which are made of its seeds' models."""
    train, dev = peer_rows.read(task)
    dev_texts = prepared(dev.texts)
    runs = {peer: [] for peer in wanted}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(task, prepared(train.texts), train.labels, folder)
        setting, tried = search(task, trainer, lambda model: peer_rows.run(1, answers(model, dev_texts), dev, 0)["accuracy"])
        for seed in peer_rows.SEEDS:
            model = trainer.train(setting, seed)
            model.save_model(str(path := trainer.file.with_name("model.bin")))
            for peer in wanted:
                found = trainer.quantized(path, setting, SIZES[peer]) if peer in SIZES else (model, path.stat().st_size)
                if found:
                    runs[peer].append(peer_rows.run(seed, answers(found[0], dev_texts), dev, found[1]))
        for peer in filter(runs.get, wanted):
            yield peer_rows.record(task, peer, train, dev, CHOSEN, setting, tried if peer == "fasttext" else [], runs[peer], PACKAGES,
                                   fixed=trainer.fixed)
