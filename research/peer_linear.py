"""Linear models: TF-IDF of words and characters, and regression on the vectors of an encoder."""
import pickle

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import LinearSVC

import peer_rows

PACKAGES = ["scikit-learn", "numpy", "scipy"]


def vectorizer():
    return make_union(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32),
                      TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, dtype=np.float32))


def machine(c):
    return LinearSVC(C=c, random_state=1)


def regression(c):
    """One logistic regression per class: with hundreds of thousands of features the multinomial one takes hours."""
    return OneVsRestClassifier(LogisticRegression(C=c, solver="liblinear", dual=True, max_iter=1000, random_state=1))


# C of a regression on vectors of length one.
VECTORS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]
TFIDF = {"tfidf-svc": (machine, [0.1, 0.3, 1.0, 3.0, 10.0]), "tfidf-regression": (regression, [10.0, 30.0, 100.0, 300.0])}


def shipped(*parts):
    """Bytes of the pickle of fitted parts, with coefficients in float32."""
    for part in parts:
        for model in getattr(part, "estimators_", [part]):
            if hasattr(model, "coef_"):
                model.coef_ = model.coef_.astype(np.float32)
    return len(pickle.dumps(parts, protocol=5))


def select(make, grid, features, labels, parts):
    """Chooses C on pairs of row numbers; `features(train, held_out)` returns the features of both parts, fitted on the first one alone."""
    cached = {}

    def score(setting, train, held_out):
        key = train[0], train[-1], held_out[0]
        if key not in cached:
            cached[key] = features(train, held_out)
        left, right = cached[key]
        return float(np.mean(make(setting["C"]).fit(left, labels[train]).predict(right) == labels[held_out]))

    return peer_rows.choose([{"C": c} for c in grid], score, parts)


def tfidf(task, wanted):
    """Yields the records of TF-IDF with each linear model."""
    train, dev = peer_rows.read(task)
    labels = np.asarray(train.labels)
    parts, chosen_by = peer_rows.splits(task, train.texts)

    def features(left, right):
        fitted = vectorizer()
        return fitted.fit_transform([train.texts[i] for i in left]), fitted.transform([train.texts[i] for i in right])

    for peer in filter(TFIDF.get, wanted):
        make, grid = TFIDF[peer]
        setting, tried = select(make, grid, features, labels, parts)
        model = make_pipeline(vectorizer(), make(setting["C"])).fit(train.texts, labels)
        answers = model.predict(dev.texts).tolist()
        yield peer_rows.record(task, peer, train, dev, chosen_by, setting, tried, [peer_rows.run(None, answers, dev, shipped(*model))], PACKAGES)


def head(vectors, dev_vectors, labels, parts):
    """Chooses C on pairs of row numbers and fits a regression on an encoder's vectors `[texts, width]`; returns its setting, what was tried, its dev answers and its bytes."""
    make = lambda c: LogisticRegression(C=c, max_iter=2000)
    setting, tried = select(make, VECTORS, lambda left, right: (vectors[left], vectors[right]), labels, parts)
    model = make(setting["C"]).fit(vectors, labels)
    return setting, tried, model.predict(dev_vectors).tolist(), shipped(model)
