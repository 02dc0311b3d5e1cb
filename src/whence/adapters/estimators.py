"""What each scikit-learn estimator minimized, read off its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.svm import SVC, LinearSVC

from whence.adapters.kernel import Kernel
from whence.adapters.tabular import near_support
from whence.arrays import Floats
from whence.errors import UnsupportedModel
from whence.objective.derived_losses import OneVersusRest
from whence.objective.losses import (
    CrossEntropy,
    Logistic,
    Loss,
    SmoothHinge,
    SquaredError,
    SquaredHinge,
    Tweedie,
)
from whence.rows import dense

_ROUNDING = 100 * np.finfo(np.float64).eps  # per row: a smaller singular value is none

Mean = Literal["none", "weights", "rows"]  # what a loss is divided by


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """What an estimator minimized: (1/n) Σ wᵢ ℓᵢ + ½ l2 ‖W‖² + l1 ‖W‖₁ + ½ intercept_l2 ‖b‖².

    Args:
        loss: ℓ, as it was minimized.
        l2: The quadratic penalty, one number or one per output, [c].
        l1: The absolute penalty.
        coef: W, [c, d]. With a kernel they are dual: f(x) = Σ k(centerⱼ, x) Wⱼ + b.
        intercept: As the estimator states it, [c], or `None` where none was fitted.
        intercept_l2: The quadratic penalty on the intercept over its constant.
        intercept_l1: The absolute penalty on the intercept over its constant.
        constant: The value of the constant column.
        mean: What the loss is divided by: nothing, the sum of sample weights, or the rows.
        signs: Whether a classifier regresses on ±1.
        kernel: The kernel, or `None` for a linear model.
        centers: The rows the dual coefficients belong to.
        support: Their positions in the training data.
    """

    loss: Loss
    l2: float | Floats
    l1: float = 0.0
    coef: Floats
    intercept: Floats | None
    intercept_l2: float = 0.0
    intercept_l1: float = 0.0
    constant: float = 1.0
    mean: Mean = "none"
    signs: bool = False
    kernel: Kernel | None = None
    centers: Any = None
    support: NDArray[np.intp] | None = None

    @property
    def one_vs_rest(self) -> bool:
        """Whether each class has a model of its own, against all others."""
        return isinstance(self.loss, OneVersusRest)


def _positive_weights(final: Any) -> tuple[float, ...]:
    """Return the weights of the positive side of one-versus-rest classifiers."""
    choice = getattr(final, "class_weight", None)
    if choice is None:
        return ()
    if choice == "balanced":
        raise UnsupportedModel(
            "Expected class_weight as a dict for a multi-class one-versus-rest model. Got "
            "'balanced'. Fit with the weights written out: {class: n / (classes * count)}."
        )
    return tuple(float(choice.get(label, 1.0)) for label in final.classes_)


def _coefficients(final: Any) -> tuple[Floats, Floats | None]:
    """Return W [c, d] and the intercepts [c], or `None` where none was fitted."""
    coef = np.atleast_2d(dense(final.coef_))
    if not final.fit_intercept:
        return coef, None
    return coef, np.broadcast_to(np.asarray(final.intercept_, dtype=np.float64), len(coef)).copy()


def _binary_or_rest(final: Any, loss: Loss) -> Loss:
    """Return the loss itself for two classes, one versus rest for more."""
    return loss if len(final.classes_) == 2 else OneVersusRest(loss, _positive_weights(final))


def _refuse(final: Any, what: str, instead: str) -> UnsupportedModel:
    """Return the error for an option without an exact treatment."""
    return UnsupportedModel(
        f"Expected a {type(final).__name__} with an exact treatment. Got {what}. {instead}"
    )


def _logistic(final: Any, n: int) -> Problem:
    """C Σ sᵢ ℓᵢ + ½‖w‖² (or the elastic net); liblinear penalizes its scaled intercept."""
    coef, intercept = _coefficients(final)
    several = len(final.classes_) > 2
    one_vs_rest = several and (
        final.solver == "liblinear" or getattr(final, "multi_class", "auto") == "ovr"
    )
    if not several and getattr(final, "multi_class", "auto") == "multinomial":
        raise _refuse(final, "multi_class='multinomial' with two classes", "Leave it out.")
    if one_vs_rest and final.class_weight is not None:
        raise _refuse(final, "class_weight with one-versus-rest", "Use solver='lbfgs'.")
    # From scikit-learn 1.8 on, l1_ratio and C = inf say what penalty said before.
    penalty = getattr(final, "penalty", "deprecated")
    share = {"l1": 1.0, "l2": 0.0, None: 0.0}.get(penalty, final.l1_ratio or 0.0)
    strength = 0.0 if penalty is None else 1 / (n * final.C)
    loss: Loss = CrossEntropy() if several else Logistic()
    liblinear = final.solver == "liblinear"
    return Problem(
        loss=OneVersusRest(Logistic()) if one_vs_rest else loss,
        l2=(1 - share) * strength,
        l1=share * strength,
        coef=coef,
        intercept=intercept,
        intercept_l2=(1 - share) * strength if liblinear else 0.0,
        intercept_l1=share * strength if liblinear else 0.0,
        constant=final.intercept_scaling if liblinear else 1.0,
    )


def _least_squares(final: Any, n: int) -> Problem:
    """½ Σ sᵢ (f − y)², without a penalty."""
    if final.positive:
        raise _refuse(final, "positive=True", "Fit without the constraint.")
    sizes = np.sort(np.asarray(getattr(final, "singular_", ()), dtype=np.float64))[::-1]
    if final.fit_intercept and n <= final.n_features_in_:
        sizes = sizes[:-1]  # a mean was taken off: of this one nothing but rounding is left
    least = np.array([_ROUNDING * n, getattr(final, "tol", 0.0)]) * sizes.max(initial=0.0)
    dropped = int(((sizes > least[0]) & (sizes <= least[1])).sum())
    if dropped:
        raise _refuse(
            final,
            f"a fit without {dropped} of {len(sizes)} directions of X, whose singular values are "
            f"below tol={final.tol:g} of the largest: columns in very different units",
            "Put a StandardScaler before it, or fit with tol=1e-15.",
        )
    coef, intercept = _coefficients(final)
    return Problem(loss=SquaredError(), l2=0.0, coef=coef, intercept=intercept)


def _ridge(final: Any, n: int) -> Problem:
    """Σ sᵢ (f − y)² + α‖w‖²."""
    if getattr(final, "positive", False):
        raise _refuse(final, "positive=True", "Fit without the constraint.")
    coef, intercept = _coefficients(final)
    return Problem(
        loss=SquaredError(),
        l2=np.broadcast_to(np.asarray(final.alpha, dtype=np.float64), len(coef)) / n,
        coef=coef,
        intercept=intercept,
        signs=is_classifier(final),
    )


def _elastic_net(final: Any, n: int) -> Problem:
    """(1/2n) Σ sᵢ (f − y)² + α ρ ‖w‖₁ + ½ α (1 − ρ)‖w‖², weights summing to n."""
    if final.positive:
        raise _refuse(final, "positive=True", "Fit without the constraint.")
    coef, intercept = _coefficients(final)
    return Problem(
        loss=SquaredError(),
        l2=final.alpha * (1 - final.l1_ratio),
        l1=final.alpha * final.l1_ratio,
        coef=coef,
        intercept=intercept,
        mean="weights",
    )


def _linear_svc(final: Any, n: int) -> Problem:
    """½‖(w, b)‖² + C Σ sᵢ ℓᵢ; liblinear penalizes its scaled intercept."""
    if final.multi_class != "ovr":
        raise _refuse(final, f"multi_class={final.multi_class!r}", "Use 'ovr'.")
    coef, intercept = _coefficients(final)
    hinge: Loss = SmoothHinge(temperature=0.0) if final.loss == "hinge" else SquaredHinge()
    strength = 1 / (n * final.C)
    first = final.penalty == "l1"
    return Problem(
        loss=_binary_or_rest(final, hinge),
        l2=0.0 if first else strength,
        l1=strength if first else 0.0,
        coef=coef,
        intercept=intercept,
        intercept_l2=0.0 if first else strength,
        intercept_l1=strength if first else 0.0,
        constant=final.intercept_scaling,
    )


def _svc(final: Any, n: int) -> Problem:
    """½‖w‖² + C Σ sᵢ hinge in the kernel's feature space, two classes."""
    if len(final.classes_) != 2:
        raise _refuse(final, f"{len(final.classes_)} classes", "Use LinearSVC, or two classes.")
    if final.kernel not in ("linear", "rbf", "poly"):
        raise _refuse(final, f"kernel={final.kernel!r}", "Use 'linear', 'rbf' or 'poly'.")
    return of_support_vectors(final, n, SmoothHinge(temperature=0.0))


def of_support_vectors(final: Any, n: int, loss: Loss) -> Problem:
    """Read what libsvm minimizes: ½‖w‖² + C Σ sᵢ ℓᵢ in a kernel's feature space.

    Args:
        final: Fitted.
        n: The number of rows.
        loss: ℓ.
    """
    kernel = Kernel(final.kernel, float(final._gamma), float(final.degree), float(final.coef0))
    duals, intercept = dense(final.dual_coef_), np.asarray(final.intercept_, dtype=np.float64)
    kernel, intercept = near_support(kernel, duals, final.support_vectors_, intercept)
    return Problem(
        loss=loss,
        l2=1 / (n * final.C),
        coef=duals,
        centers=final.support_vectors_,
        support=np.asarray(final.support_, dtype=np.intp),
        intercept=intercept,
        kernel=kernel,
    )


def _sgd(final: Any, n: int) -> Problem:
    """(1/n) Σ sᵢ ℓᵢ + α (½ (1 − ρ)‖w‖² + ρ ‖w‖₁)."""
    losses = _SGD_LOSSES[type(final)]
    if final.loss not in losses:
        raise _refuse(final, f"loss={final.loss!r}", f"Use one of {', '.join(losses)}.")
    if final.average and not is_classifier(final):
        raise _refuse(final, "average=True", "Leave it out.")
    if final.early_stopping:
        raise _refuse(final, "early_stopping=True, a fit to a part of the rows", "Leave it out.")
    coef, intercept = _coefficients(final)
    loss = losses[final.loss]
    share = {"l2": 0.0, "l1": 1.0, "elasticnet": final.l1_ratio, None: 0.0}[final.penalty]
    alpha = 0.0 if final.penalty is None else final.alpha
    return Problem(
        loss=_binary_or_rest(final, loss) if is_classifier(final) else loss,
        l2=alpha * (1 - share),
        l1=alpha * share,
        coef=coef,
        intercept=intercept,
        mean="rows",
    )


_SGD_LOSSES: dict[type, dict[str, Loss]] = {
    SGDClassifier: {
        "log_loss": Logistic(),
        "hinge": SmoothHinge(temperature=0.0),
        "squared_hinge": SquaredHinge(),
    },
    SGDRegressor: {"squared_error": SquaredError()},
}


def _generalized(final: Any, n: int) -> Problem:
    """(1/Σsᵢ) Σ sᵢ ½ d(y, f) + ½ α‖w‖²."""
    power = {PoissonRegressor: 1.0, GammaRegressor: 2.0}.get(type(final))
    link = "log"
    if power is None:
        power = float(final.power)
        link = final.link if final.link != "auto" else ("identity" if power <= 0 else "log")
    if link == "identity" and power != 0:
        raise _refuse(final, f"link='identity' with power={power:g}", "Use link='log'.")
    coef, intercept = _coefficients(final)
    return Problem(
        loss=SquaredError() if link == "identity" else Tweedie(power=power),
        l2=final.alpha,
        coef=coef,
        intercept=intercept,
        mean="weights",
    )


READERS: dict[type, Callable[[Any, int], Problem]] = {
    ElasticNet: _elastic_net,
    GammaRegressor: _generalized,
    Lasso: _elastic_net,
    LinearRegression: _least_squares,
    LinearSVC: _linear_svc,
    LogisticRegression: _logistic,
    PoissonRegressor: _generalized,
    Ridge: _ridge,
    RidgeClassifier: _ridge,
    SGDClassifier: _sgd,
    SGDRegressor: _sgd,
    SVC: _svc,
    TweedieRegressor: _generalized,
}
