"""The estimator in scikit-learn's hands."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, classification_report, log_loss, make_scorer
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

import kinglet_text
from conftest import INTENTS
from kinglet_text.sklearn import KingletClassifier


@pytest.fixture(scope="module")
def rows(dev: list[dict[str, str]]) -> tuple[list[str], list[str]]:
    some = dev[::5]
    return [row["text"] for row in some], [row["label"] for row in some]


# check_estimator itself refuses estimators that do not take tables of numbers, so its checks are called one by one: first those
# without data, then, of those with data, all that ask nothing of what is learned, over texts made of the rows of a table.
WITHOUT_DATA = [
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
]
WITH_DATA = [
    "check_fit_score_takes_y",
    "check_estimators_overwrite_params",
    "check_dont_overwrite_parameters",
    "check_estimators_fit_returns_self",
    "check_readonly_memmap_input",
    "check_estimators_unfitted",
    "check_estimators_pickle",
    "check_supervised_y_no_nan",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_dict_unchanged",
    "check_fit_idempotent",
    "check_fit_check_is_fitted",
    "check_requires_y_none",
    "check_pipeline_consistency",
]


class OverTables(KingletClassifier):
    """Reads each row of a table as a text and each class, a number, as a label."""

    def __sklearn_tags__(self):  # type: ignore[no-untyped-def]
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = True, False, False
        return tags

    def fit(self, X, y):  # type: ignore[no-untyped-def]
        if y is not None:
            y = np.asarray(y)
            if y.dtype.kind == "f" and not np.isfinite(y).all():
                raise ValueError("Input y contains NaN or infinity")
            y = [kinglet_text.Classifier().labels[int(label) % 151] for label in y.ravel()]
        return super().fit(rows_as_texts(X), y)

    def predict(self, X):  # type: ignore[no-untyped-def]
        return np.array([kinglet_text.Classifier().labels.index(label) for label in super().predict(rows_as_texts(X))])

    def predict_proba(self, X):  # type: ignore[no-untyped-def]
        return super().predict_proba(rows_as_texts(X))

    def decision_function(self, X):  # type: ignore[no-untyped-def]
        return super().decision_function(rows_as_texts(X))

    def score(self, X, y):  # type: ignore[no-untyped-def]
        return accuracy_score(np.asarray(y, dtype=int) % 151, self.predict(X))  # type: ignore[no-untyped-call]


def rows_as_texts(X) -> list[str]:  # type: ignore[no-untyped-def]
    return [" ".join(f"{value:.3f}" for value in row) for row in np.asarray(X)]


@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_scikit_learns_checks_without_data(name: str) -> None:
    getattr(estimator_checks, name)("KingletClassifier", KingletClassifier())


@pytest.mark.parametrize("name", WITH_DATA)
def test_scikit_learns_checks_over_texts_made_of_numbers(name: str) -> None:
    getattr(estimator_checks, name)("OverTables", OverTables())


def test_answers_are_the_models(rows: tuple[list[str], list[str]]) -> None:
    texts, labels = rows
    estimator, classifier = KingletClassifier(INTENTS), kinglet_text.Classifier(threshold=0)
    assert estimator.fit(texts, labels) is estimator
    assert is_classifier(estimator)
    assert estimator.predict(texts).tolist() == classifier.predict(texts)
    # The model has its labels in another order.
    assert estimator.classes_.tolist() == sorted(classifier.labels) != classifier.labels
    order = [classifier.labels.index(name) for name in estimator.classes_]
    assert np.array_equal(estimator.predict_proba(texts), classifier.predict_proba(texts)[:, order])
    assert np.array_equal(estimator.decision_function(texts), classifier.scores(texts)[:, order])
    assert (estimator.classes_[estimator.predict_proba(texts).argmax(axis=1)] == estimator.predict(texts)).all()
    assert estimator.score(texts, labels) == accuracy_score(labels, classifier.predict(texts)) > 0.8
    assert "alarm" in classification_report(labels, estimator.predict(texts), zero_division=0)


def test_unsure_is_said_only_where_it_was_asked_for(rows: tuple[list[str], list[str]]) -> None:
    texts, labels = rows
    plain = kinglet_text.Classifier().predict(texts)
    assert None in plain
    estimator = KingletClassifier(unsure="a person decides").fit(texts, labels)
    assert estimator.predict(texts).tolist() == [label or "a person decides" for label in plain]
    always = KingletClassifier(unsure="?", threshold=1).fit(texts, labels)
    assert set(always.predict(texts)) == {"?"}
    sure = KingletClassifier(threshold=1).fit(texts, labels).predict(texts).tolist()
    assert sure == kinglet_text.Classifier(threshold=0).predict(texts)
    # `unsure` may stand in y.
    KingletClassifier(unsure="?").fit(["what"], ["?"])


def test_it_works_where_classifiers_work(rows: tuple[list[str], list[str]]) -> None:
    texts, labels = rows
    split = [(np.arange(100), np.arange(100, len(texts)))]
    scores = cross_val_score(KingletClassifier(), texts, labels, cv=split)
    assert scores.tolist() == [KingletClassifier().fit(texts, labels).score(texts[100:], labels[100:])]
    halves = [(np.arange(50), np.arange(50, 100)), (np.arange(50, 100), np.arange(50))]
    predicted = cross_val_predict(KingletClassifier(), texts[:100], labels[:100], cv=halves)
    assert predicted.tolist() == kinglet_text.Classifier(threshold=0).predict(texts[:100])
    # A fold need not have every label of the model, so the scorer is told them.
    loss = make_scorer(log_loss, response_method="predict_proba", labels=sorted(kinglet_text.Classifier().labels))
    losses = cross_val_score(KingletClassifier(), texts, labels, cv=halves, scoring=loss)
    assert (losses > 0).all() and (losses < 1).all()
    upper = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = make_pipeline(upper, KingletClassifier())
    shouted = [text.upper() for text in texts]
    assert pipeline.fit(shouted, labels).score(shouted, labels) > 0.8
    search = GridSearchCV(KingletClassifier(), {"threads": [1, 2]}, cv=halves).fit(texts, labels)
    assert search.best_score_ > 0.8
    # Ensembles number the labels before they fit.
    with pytest.raises(ValueError, match="the model does not know the labels 0, 1"):
        VotingClassifier([("kinglet", KingletClassifier())]).fit(["wake me", "tax"], ["alarm", "taxes"])


def test_parameters_and_clones() -> None:
    estimator = KingletClassifier(INTENTS, threads=2, backend="scalar", threshold=0.5, unsure="?")
    wanted = {"path": INTENTS, "threads": 2, "backend": "scalar", "threshold": 0.5, "unsure": "?"}
    assert estimator.get_params() == clone(estimator.fit(["wake me"], ["alarm"])).get_params() == wanted
    assert not hasattr(clone(estimator), "classes_")
    assert estimator.set_params(threads=1).threads == 1
    assert pickle.loads(pickle.dumps(estimator)).predict(["wake me at seven tomorrow"]).tolist() == ["alarm"]


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(NotFittedError, match="not fitted yet"):
        KingletClassifier().predict(["a"])
    with pytest.raises(ValueError, match=r"the model does not know the labels 'a', 'b', 'c' and 1 more"):
        KingletClassifier().fit(["t"] * 4, ["d", "c", "b", "a"])
    with pytest.raises(ValueError, match="X has 1 texts, y 2 labels"):
        KingletClassifier().fit(["t"], ["alarm", "taxes"])
    with pytest.raises(ValueError, match="X has 2 dimensions, must have one"):
        KingletClassifier().fit(np.array([["t"]]), ["alarm"])
    with pytest.raises(TypeError, match="X is a single str"):
        KingletClassifier().fit("text", ["alarm"])
    with pytest.raises(TypeError, match=r"texts\[1\] is nan, a missing value"):
        KingletClassifier().fit(["t"], ["alarm"]).predict(["t", float("nan")])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="threads is 0"):
        KingletClassifier(threads=0).fit(["t"], ["alarm"])
    with pytest.raises(FileNotFoundError):
        KingletClassifier("absent.kinglet").fit(["t"], ["alarm"])


def test_without_scikit_learn_only_the_estimator_is_missing() -> None:
    code = """
import sys
sys.modules["sklearn"] = None
import kinglet_text
assert kinglet_text.Classifier().predict(["wake me at seven tomorrow"]) == ["alarm"]
try:
    import kinglet_text.sklearn
except ImportError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said == "kinglet_text.sklearn needs scikit-learn 1.6 or newer: pip install 'scikit-learn>=1.6'\n"
