"""The interface of methods: frozen options that, fitted to a model, predict effects of removals.

```
method.fit(trained)           pays for what all queries share, once per model
    .scores(queries)          predicted change of each query's measure if each example is removed
    .self_scores()            the same of each training example's own loss
```

A new method writes `attribution`, and an `Attribution` with `values`; every use of whence takes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

from whence.checked import checked
from whence.errors import UnsupportedModel
from whence.methods.attribution import Attribution
from whence.methods.features import FeatureMap
from whence.objective.cache import cached
from whence.objective.trained import Examples, Trained


class Method(ABC):
    """A way to score training examples: frozen options and one function.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> method: Method = whence.Influence(order="newton")
        >>> method.fit(objective).scores((X[:2], y[:2]), indices=[5, 6, 7]).values.shape
        (2, 3)
    """

    @abstractmethod
    def attribution(self, trained: Trained) -> Attribution:
        """Return the method fitted to a model; called once per model by `fit`.

        Args:
            trained: The model.

        Returns:
            The attribution.

        Raises:
            UnsupportedModel: If the method does not apply to such a model.
        """

    @final
    @checked
    def fit(self, trained: Trained) -> Attribution:
        """Return the method fitted to a model: computed once, and freed with the model.

        Args:
            trained: The model.

        Returns:
            The attribution.

        Raises:
            UnsupportedModel: If the method does not apply to such a model.
        """
        return cached(trained, self, self.attribution)

    def feature_map(self, trained: Trained) -> FeatureMap:
        """Return the features of single examples whose inner products are the scores.

        Args:
            trained: The model.

        Returns:
            The features, which `whence.Index` stores.

        Raises:
            UnsupportedModel: If the scores are not inner products, or not of such a model.
        """
        raise UnsupportedModel(
            "Expected a method whose scores are inner products of features of one example each, "
            "such as whence.Projected() or whence.TracIn(). "
            f"Got {self!r}. Use .fit(model).scores(queries), which keeps nothing on disk."
        )

    def refined(self) -> Method | None:
        """Return the method that predicts the size of single effects better, or `None`."""
        return None

    def rougher(self) -> Method | None:
        """Return the method with one correction less, or `None`: it tells what that is worth."""
        return None

    def answers(self, query: Examples) -> tuple[tuple[Method, Examples, float], ...]:
        """Return the answers that a score is about: what scores each, the answer, and its sign.

        Args:
            query: One query.
        """
        return ((self, query, 1.0),)
