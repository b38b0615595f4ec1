"""A scikit-learn estimator around `kinglet_text.Classifier`. Needs scikit-learn 1.6 or newer: `pip install 'scikit-learn>=1.6'`.

>>> from kinglet_text.sklearn import KingletClassifier
>>> from sklearn.model_selection import cross_val_score
>>> texts = ["wake me at seven", "set an alarm for six", "what is the tax rate", "how much tax do i pay"]
>>> labels = ["alarm", "alarm", "taxes", "taxes"]
>>> [float(score) for score in cross_val_score(KingletClassifier(), texts, labels, cv=2)]
[1.0, 1.0]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import NotFittedError
except ImportError as error:
    raise ImportError("kinglet_text.sklearn needs scikit-learn 1.6 or newer: pip install 'scikit-learn>=1.6'") from error

import kinglet_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KingletClassifier"]


class KingletClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A pre-trained text classifier. `X` is an iterable of `str` or `bytes`, one text each.

    The model is already trained: `fit` opens it, checks that it knows the labels of `y` and changes nothing else, so scores
    of a cross-validation are those of the model on each fold. The model knows labels by name, so it does not work with ensembles
    that number them before fitting (`VotingClassifier`, `StackingClassifier`).

    `predict` returns a label for every text, as scikit-learn's metrics expect, unless `unsure` sets the answer for texts that
    the model is unsure about (`kinglet_text.Classifier.predict` returns None for them).

    Parameters
    ----------
    path : str, path or bytes, default=None
        As `kinglet_text.Classifier`; None is the built-in model.
    backend : str, default=None
    threads : int, default=1
    threshold : float, default=None
        As `kinglet_text.Classifier`; only used with `unsure`.
    unsure : str, default=None
        The answer if no label is more probable than the threshold. It need not be one of the model's labels.

    Attributes
    ----------
    classes_ : ndarray of str
        The labels of the model, sorted; the columns of `predict_proba`. Excludes `unsure` unless the model knows it.

    Examples
    --------
    >>> from kinglet_text.sklearn import KingletClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> strip = FunctionTransformer(lambda texts: [text.split(">")[-1] for text in texts])
    >>> pipeline = make_pipeline(strip, KingletClassifier(unsure="ask a person"))
    >>> pipeline.fit(["> wake me at six"], ["alarm"]).predict(["> wake me at seven tomorrow", "> colourless green ideas sleep furiously"])
    array(['alarm', 'ask a person'], dtype='<U25')
    """

    def __init__(
        self,
        path: str | bytes | PathLike[str] | None = None,
        *,
        backend: str | None = None,
        threads: int = 1,
        threshold: float | None = None,
        unsure: str | None = None,
    ) -> None:
        self.path = path
        self.backend = backend
        self.threads = threads
        self.threshold = threshold
        self.unsure = unsure

    def fit(self, X: Iterable[str | bytes], y: Sequence[str] | NDArray[Any]) -> KingletClassifier:
        """Opens the model and checks that it knows every label of `y`, and that `X` has as many texts.

        Raises ValueError for labels the model does not know, naming some, and the exceptions of `kinglet_text.Classifier`.
        """
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        texts, labels = _texts(X), np.asarray(y, dtype=object)
        if labels.ndim != 1:
            raise ValueError(f"y has {labels.ndim} dimensions, must have one: a label for each text")
        if len(texts) != len(labels):
            raise ValueError(f"X has {len(texts)} texts, y {len(labels)} labels")
        if not len(texts):
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
        classifier = self._open()
        if classifier.multi_label:
            raise ValueError(
                "any number of labels may apply to a text of this model, and this estimator is for one; "
                "call kinglet_text.Classifier.predict_labels"
            )
        unknown = sorted(map(repr, set(labels.tolist()) - set(classifier.labels) - {self.unsure}))
        if unknown:
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            named = ", ".join(unknown[:3])
            raise ValueError(f"the model does not know the labels {named}{more}; see kinglet_text.Classifier.labels")
        names = np.asarray(classifier.labels)
        # Columns in the order that scikit-learn expects of classes_.
        self._columns = np.argsort(names, kind="stable")
        self.classes_ = names[self._columns]
        self._classifier = classifier
        return self

    def predict(self, X: Iterable[str | bytes]) -> NDArray[np.str_]:
        """Returns the label of each text, `[len(X)]`, or `unsure` for some, if it is set."""
        classifier = self._fitted()
        if self.unsure is None:
            # The most likely label, the first in the model's order among ties; of texts without a word too.
            names: NDArray[np.str_] = np.asarray(classifier.labels)
            likeliest: NDArray[np.str_] = names[classifier.predict_proba(_texts(X)).argmax(axis=1)]
            return likeliest
        answers = classifier.predict(_texts(X))
        # What follows gives whole arrays of one string type, whatever the answers are.
        widest = max(len(name) for name in [*classifier.labels, self.unsure])
        return np.array([self.unsure if answer is None else answer for answer in answers], dtype=f"<U{widest}")

    def predict_proba(self, X: Iterable[str | bytes]) -> NDArray[np.float32]:
        """Returns the probability of each class, `[len(X), len(classes_)]`; calibrated if the model is."""
        return self._fitted().predict_proba(_texts(X))[:, self._columns]

    def decision_function(self, X: Iterable[str | bytes]) -> NDArray[np.float32]:
        """Returns the scores before softmax, `[len(X), len(classes_)]`; with two classes `[len(X)]`, of the second against the first."""
        scores = self._fitted().scores(_texts(X))[:, self._columns]
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def _open(self) -> kinglet_text.Classifier:
        threshold = 0.0 if self.unsure is None else self.threshold
        return kinglet_text.Classifier(self.path, backend=self.backend, threads=self.threads, threshold=threshold)

    def _fitted(self) -> kinglet_text.Classifier:
        classifier: kinglet_text.Classifier | None = getattr(self, "_classifier", None)
        if classifier is None:
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet: fit opens the model and checks the labels."
            )
        return classifier

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        # The model decides which labels there are, not y.
        tags.no_validation = True
        return tags


def _texts(X: Iterable[str | bytes]) -> list[str | bytes]:
    """A list, with what the estimator refuses refused in scikit-learn's words."""
    if isinstance(X, (str, bytes)):
        raise TypeError(f"X is a single {type(X).__name__}; give a list of texts")
    if isinstance(X, Mapping):
        raise TypeError(f"X is {type(X).__name__}, not texts; give one column, such as list(X['text'])")
    if getattr(X, "ndim", 1) != 1:
        raise ValueError(f"X has {getattr(X, 'ndim')} dimensions, must have one: a text each; give one column")
    return list(X)
