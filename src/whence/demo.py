"""The demonstration: why was this handwritten digit misread?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from whence.adapters.sklearn import from_sklearn
from whence.applications.explain import explain
from whence.applications.explanation import Explanation
from whence.evaluation.agreement import Agreement

_RETRAINED = 50


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Demonstration:
    """A misread digit and what made the model misread it.

    Args:
        explanation: The training digits behind the prediction.
        verification: Predicted effects against retraining.
        labels: The training labels, [n].
        accuracy: Of the model on the test digits.
        position: The position of the query among the test digits.
        truth: What the query shows.
        predicted: What the model says.
        probability: What the model gives to its answer.
        loss: The query's loss, in nats.
    """

    explanation: Explanation
    verification: Agreement
    labels: NDArray[np.int64]
    accuracy: float
    position: int
    truth: int
    predicted: int
    probability: float
    loss: float

    def __str__(self) -> str:
        """Return the demonstration as text."""
        n, explanation, quantity = len(self.labels), self.explanation, self.explanation.quantity
        now = quantity.text(quantity.read(self.loss), 2)
        lines = [
            f"Softmax regression on {n} handwritten digits: {self.accuracy:.1%} of the test "
            "digits read correctly.",
            f"Test digit {self.position} is a {self.truth}. The model says {self.predicted} "
            f"with probability {self.probability:.2f}, and gives {self.truth} only {now}.",
            "",
        ]
        sides = (explanation.lowering, explanation.raising)
        for phrase, effects in zip(quantity.phrases[::-1], sides, strict=True):
            lines.append(
                f"Training digits that push {phrase} (without it {quantity.name} would be)"
            )
            lines += [
                f"  digit {effect.position:>4}, a {self.labels[effect.position]}: "
                + quantity.text(quantity.read(self.loss + effect.effect), 2)
                for effect in effects[:5]
            ]
        return "\n".join([*lines, "", str(self.verification)])


def demonstrate() -> Demonstration:
    """Fit a softmax regression to half of scikit-learn's digits and explain its worst mistake.

    Returns:
        The demonstration, with 50 removals retrained for real.
    """
    images, labels = load_digits(return_X_y=True)
    images = images / 16
    train = np.random.default_rng(0).permutation(len(labels)) < len(labels) // 2
    x, y = images[train], labels[train]
    model = LogisticRegression(tol=1e-8, max_iter=10_000).fit(x, y)
    probabilities = model.predict_proba(images[~train])
    truth = labels[~train]
    losses = -np.log(probabilities[np.arange(len(truth)), truth])
    worst = int(losses.argmax())
    explanation = explain(from_sklearn(model, x, y), (images[~train][worst], truth[worst]))
    return Demonstration(
        explanation=explanation,
        verification=explanation.verify(_RETRAINED),
        labels=y,
        accuracy=float((probabilities.argmax(1) == truth).mean()),
        position=worst,
        truth=int(truth[worst]),
        predicted=int(probabilities[worst].argmax()),
        probability=float(probabilities[worst].max()),
        loss=float(losses[worst]),
    )


def write_demo(path: Path) -> Demonstration:
    """Run the demonstration and write its page.

    Args:
        path: Where the HTML page goes.

    Returns:
        The demonstration.
    """
    demonstration = demonstrate()
    demonstration.explanation.report(
        path,
        image_shape=(8, 8),
        verification=demonstration.verification,
        title="Why was this digit misread?",
        command="whence demo",
    )
    return demonstration
