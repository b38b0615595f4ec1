"""Kinglet: pre-trained convolutional text classifiers that run anywhere.

>>> import kinglet_text
>>> classifier = kinglet_text.Classifier()            # the built-in model: 150 everyday intents
>>> classifier.predict(["wake me at seven tomorrow"])
['alarm']

`Embedder("sentences.kinglet").embed(texts)` returns sentence vectors of a model that embeds. `Classifier("model.kinglet")` opens a model written by `kinglet-export`. `kinglet_text.sklearn` wraps it as a scikit-learn
estimator. Scores are, bit for bit, those of the program `kinglet` and of every other device.
"""

from kinglet_text._native import Answer, BundleError, Classifier, Embedder, Stream, __version__, backends

__all__ = ["Answer", "BundleError", "Classifier", "Embedder", "Stream", "__version__", "backends"]
