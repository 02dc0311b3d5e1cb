"""Cox's proportional hazards, as lifelines and scikit-survival fit them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.adapters.answered import Answered
from whence.adapters.answers import Answer
from whence.adapters.rows import encoded
from whence.adapters.tables import as_floats
from whence.arrays import Floats
from whence.checked import checked
from whence.errors import InvalidInput, NotFitted, UnsupportedModel
from whence.fitting.partial_likelihood import PartialLikelihood, log_at_risk, ranked
from whence.objective.losses import Loss
from whence.objective.trained import Examples
from whence.rows import column_names


@dataclass(frozen=True)
class Hazard(Loss):
    r"""A row's part of the partial likelihood: ℓ((η, s), (t, δ)) = δ (s − η).

    η is the log of the row's hazard over the baseline and s = log Σ_{t_j >= t} w_j e^{η_j} that of
    all training rows which are at risk at its time t. It is 0 for a censored row, δ = 0.

    References:
        Cox (1972), section 5.

    Examples:
        >>> import torch
        >>> Hazard()(torch.tensor([[0.5, 2.0]]), torch.tensor([[10.0, 1.0]]))
        tensor([1.5000])
    """

    regresses: ClassVar[bool] = True
    unit: ClassVar[str] = "−log of the partial likelihood"

    def _events(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return δ, [b]."""
        return targets.reshape(len(outputs), 2)[:, 1].to(outputs.dtype)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        return self._events(outputs, targets) * (outputs[:, 1] - outputs[:, 0])

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∂ℓ/∂(η, s), [b, 2]."""
        event = self._events(outputs, targets)
        return torch.stack([-event, event], 1)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return zeros: the loss is linear in η and s."""
        return torch.zeros_like(tangents)

    def prediction(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return η, [b]."""
        return outputs[:, 0]

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless each row has a time and 0 or 1 for the event."""
        if targets.shape != (len(outputs), 2) or not bool(
            ((targets[:, 1] * 2 - 1).abs() == 1).all()
        ):
            raise InvalidInput(
                "Expected a time and 0 or 1 for the event of each row, [b, 2]. Got targets of "
                f"shape {list(targets.shape)}."
            )


@final
@dataclass(frozen=True, eq=False)
class Durations(Answer):
    """Times until an event or the end of observation."""

    @property
    def loss(self) -> Loss:
        """The row's part of the partial likelihood."""
        return Hazard()

    def outputs(self, estimator: Any, rows: Any) -> Floats:
        """Raise: a hazard is made of more than rows."""
        raise NotImplementedError

    def targets(self, labels: NDArray[Any]) -> Tensor:
        """Return time and event, [b, 2]."""
        pairs = np.asarray(labels, dtype=np.float64)
        pairs = pairs.reshape(-1, 2) if pairs.size == 2 else pairs
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.isfinite(pairs).all():
            raise InvalidInput(
                "Expected (time, event) of each row, or a structured array of both, finite. Got "
                f"targets of shape {pairs.shape}."
            )
        if not np.isin(pairs[:, 1], (0, 1)).all():
            raise InvalidInput(
                f"Expected events of 0 or 1. Got {pairs[:, 1].max():g}. Targets are (time, event)."
            )
        return torch.from_numpy(np.ascontiguousarray(pairs))

    def labels_of(self, targets: Tensor) -> Floats:
        """Return time and event, [b, 2]."""
        return targets.numpy()


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Cox(Answered):
    """A fitted proportional-hazards model: its coefficients and the rows at risk.

    Args:
        design: From a user's rows to the columns of β, [b, d].
        matrix: Those of the training rows, [n, d].
        beta: β, [d].
        efron: How ties count: Efron's way or Breslow's.
        penalty: From the rows that are there [m, d] to the penalty of each coefficient, [d].
        entry: From when on each training row is at risk, [n]; `None` if from the first moment on.
        strata: From a user's rows to the stratum of each, [b]; `None` if there is one.
    """

    design: Callable[[Any], Floats]
    matrix: Floats
    beta: Floats
    efron: bool
    penalty: Callable[[Floats], Floats]
    entry: Floats | None = None
    strata: Callable[[Any], NDArray[np.intp]] | None = None

    @property
    def instant(self) -> bool:
        """True: a refit takes a few small Newton steps."""
        return True

    def outputs(self, examples: Any) -> Tensor:
        """Return η and the log of the summed hazards at risk, [b, 2]."""
        eta = self.design(examples.inputs) @ self.beta
        risk, at = np.empty(len(eta)), examples.targets[:, 0].numpy()
        where, there = self._stratum(examples.inputs), np.flatnonzero(self.weights.numpy() > 0)
        time, own = self.train.targets[:, 0].numpy()[there], self._strata[there]
        logs = self.matrix[there] @ self.beta + np.log(self.weights.numpy()[there])
        entry = None if self.entry is None else self.entry[there]
        for stratum in np.unique(where):
            some, rows = where == stratum, own == stratum
            late = None if entry is None else entry[rows]
            risk[some] = log_at_risk(at[some], time[rows], late, logs[rows])
        # Where no training row is at risk it is the row itself.
        risk = np.where(np.isfinite(risk), risk, eta)
        return torch.from_numpy(np.stack([eta, risk], 1))

    def _stratum(self, rows: Any) -> NDArray[np.intp]:
        """Return the stratum of each row, [b]."""
        if self.strata is None:
            return np.zeros(np.shape(rows)[0], dtype=np.intp)
        return self.strata(rows)

    @cached_property
    def _strata(self) -> NDArray[np.intp]:
        """The stratum of each training row, [n]."""
        return self._stratum(self.train.inputs)

    def refit(self, weights: Tensor | None = None) -> Cox:
        """Return the maximum of the partial likelihood of the rows with weight."""
        weights = self.weights if weights is None else weights.double()
        return replace(self, weights=weights, beta=self._likelihood(weights).minimum(self.beta))

    def refit_edited(self, where: NDArray[np.intp], new: Examples) -> Cox:
        """Return the maximum with some rows replaced; they are at risk from when the old ones were.

        Args:
            where: Positions of the rows that go.
            new: Those that come.
        """
        matrix = self.matrix.copy()
        matrix[where] = self.design(new.inputs)
        return replace(self, train=self.train.replaced(where, new), matrix=matrix).refit()

    def unfinished(self) -> bool:
        """Return whether finishing the fit moves it by a tenth of what a removal does, or more.

        Twice what a move gains is its square in standard errors; a removal's is about d/n.
        """
        gain = self._likelihood(self.weights).left_to_gain(self.beta)
        return 2 * gain > 0.01 * len(self.beta) / len(self.train)

    def _likelihood(self, weights: Tensor) -> PartialLikelihood:
        """Return the partial likelihood of the rows with weight."""
        there = (weights > 0).numpy()
        if not there.any():
            raise InvalidInput("Expected at least one training row with weight. Got none.")
        x, targets = self.matrix[there], self.train.targets.numpy()[there]
        time, entry = targets[:, 0], None if self.entry is None else self.entry[there]
        if self.strata is not None:
            time, entry = ranked(time, entry, self._strata[there])
        return PartialLikelihood(
            x=x,
            time=time,
            entry=entry,
            event=targets[:, 1] > 0,
            weights=weights.numpy()[there],
            efron=self.efron,
            penalty=self.penalty(x),
        )


_NOTE = (
    "The loss is a row's part of the partial likelihood, 0 for a censored row. "
    "measure='prediction' is the log of its hazard over the baseline."
)
_UNFINISHED = (
    "The fit stopped before the maximum of the partial likelihood: effects of removals hold what "
    "finishing it changes. Fit again with more steps."
)


def cox(estimator: Any, X: Any, y: Any, sample_weight: Floats | None) -> Cox | None:
    """Return scikit-survival's CoxPHSurvivalAnalysis with its data, or `None` of anything else.

    Args:
        estimator: Fitted.
        X: Its training rows, [n, d].
        y: Its structured (event, time) array, [n].
        sample_weight: `None`: it takes none.
    """
    module = type(estimator).__module__
    if not module.startswith("sksurv.") or type(estimator).__name__ != "CoxPHSurvivalAnalysis":
        if getattr(getattr(y, "dtype", None), "names", None):
            raise InvalidInput(
                "Expected a CoxPHSurvivalAnalysis for targets of events and times. Got a "
                f"{type(estimator).__name__}. Fit one itself, to transformed columns."
            )
        return None
    if sample_weight is not None and (sample_weight != 1).any():
        raise InvalidInput(
            "Expected no sample weights. Got some: CoxPHSurvivalAnalysis takes none."
        )
    alpha = np.broadcast_to(np.asarray(estimator.alpha, dtype=np.float64), len(estimator.coef_))
    return _made(
        estimator,
        (X, np.asarray(y)),
        design=lambda rows: np.asarray(as_floats(rows), dtype=np.float64),
        beta=np.asarray(estimator.coef_, dtype=np.float64),
        efron=estimator.ties == "efron",
        penalty=lambda rows: alpha,
        weights=None,
    )


@checked
def from_lifelines(fitter: Any, frame: pd.DataFrame) -> Cox:
    r"""Return a fitted CoxPHFitter of lifelines, with its data, as a model that methods score.

    It maximizes the partial likelihood, ties by Efron's method,

        Σ_i w_i δ_i (x_iᵀβ − log Σ_{t_j >= t_i} w_j e^{x_jᵀβ}) − n · penalizer · ½ ‖diag(s) β‖²,

    with s the standard deviations of the columns. With `entry_col` the inner sum is over the rows
    that have entered before t_i, with `strata` over those of the same stratum; `cluster_col` moves
    no coefficient. A removal is a refit of a few Newton steps, so
    that `LeaveOneOut` is the default method. Queries are (frame, pairs of time and event).

    Args:
        fitter: Fitted, with Breslow's baseline.
        frame: What it was fitted on: columns of features, of durations, events, weights, entries
            and strata.

    Returns:
        The model.

    Raises:
        NotFitted: If it has not been fitted.
        InvalidInput: If the frame lacks a column of the fit.
        UnsupportedModel: If it is of another kind, or has another baseline or an L1 penalty.

    Cost:
        O(n d²) for each of a few Newton steps, which say whether the fit is finished; as much for
        each removal.

    References:
        Cox (1972); Efron (1977) for ties.

    Examples:
        >>> import whence
        >>> from lifelines import CoxPHFitter
        >>> from lifelines.datasets import load_rossi
        >>> rossi = load_rossi()
        >>> model = whence.from_lifelines(CoxPHFitter().fit(rossi, "week", "arrest"), rossi)
        >>> queries = rossi[:2], rossi[["week", "arrest"]][:2]
        >>> scores = whence.LeaveOneOut().fit(model).scores(queries, measure="prediction")
        >>> scores.values.shape
        (2, 432)
    """
    name = type(fitter).__name__
    if name != "CoxPHFitter" or not hasattr(fitter, "fit"):
        raise UnsupportedModel(
            f"Expected a CoxPHFitter of lifelines. Got {name}. For another model of survival wrap "
            "fit and predict in an object, and use whence.from_sklearn."
        )
    if not hasattr(fitter, "params_"):
        raise NotFitted("Expected a fitted CoxPHFitter. Got one before .fit(frame, ...).")
    if fitter.baseline_estimation_method != "breslow" or np.any(fitter.l1_ratio):
        raise UnsupportedModel(
            "Expected baseline_estimation_method='breslow' and l1_ratio=0. Got "
            f"{fitter.baseline_estimation_method!r} and {fitter.l1_ratio!r}. Fit with these."
        )
    late, kinds = fitter.entry_col, np.atleast_1d(fitter.strata or []).tolist()
    extra = [fitter.duration_col, fitter.event_col, fitter.weights_col, late, fitter.cluster_col]
    missing = [name for name in (*extra, *kinds) if name is not None and name not in frame.columns]
    if missing:
        raise InvalidInput(
            f"Expected the frame that the model was fitted on, with {missing[0]!r}. Got columns "
            f"{', '.join(map(repr, frame.columns))[:200]}."
        )
    columns = [column for column in frame.columns if column not in extra]
    event = (
        np.ones(len(frame)) if fitter.event_col is None else frame[fitter.event_col].astype(float)
    )
    weights = None if fitter.weights_col is None else frame[fitter.weights_col].to_numpy(float)
    penalizer = np.asarray(fitter.penalizer, dtype=np.float64)

    def design(rows: Any) -> Floats:
        return np.asarray(fitter.regressors.transform_df(rows)["beta_"], dtype=np.float64)

    def penalty(rows: Floats) -> Floats:
        return np.asarray(len(rows) * penalizer * rows.var(0, ddof=1))

    return _made(
        fitter,
        (frame[columns], np.stack([frame[fitter.duration_col], event], 1)),
        design=design,
        beta=np.asarray(fitter.params_, dtype=np.float64),
        efron=True,
        penalty=penalty,
        weights=weights,
        entry=None if late is None else frame[late].to_numpy(float),
        strata=_strata(frame, kinds) if kinds else None,
    )


def _strata(frame: pd.DataFrame, kinds: list[str]) -> Callable[[Any], NDArray[np.intp]]:
    """Return a function from rows to their strata, by the values of some columns; −1 if unknown."""
    known = pd.MultiIndex.from_frame(frame[kinds].drop_duplicates())

    def stratum(rows: Any) -> NDArray[np.intp]:
        return np.asarray(known.get_indexer(pd.MultiIndex.from_frame(rows[kinds])))

    return stratum


def _made(
    fitted: Any,
    data: tuple[Any, Any],
    *,
    design: Callable[[Any], Floats],
    beta: Floats,
    efron: bool,
    penalty: Callable[[Floats], Floats],
    weights: Floats | None,
    entry: Floats | None = None,
    strata: Callable[[Any], NDArray[np.intp]] | None = None,
) -> Cox:
    """Return the model."""
    answer, names = Durations(), column_names(data[0])
    train = encoded(data, int(np.shape(data[0])[1]), names, answer.targets)
    n = len(train)
    made = Cox(
        fitted=fitted,
        answer=answer,
        train=train,
        weights=torch.from_numpy(np.ones(n) if weights is None else np.array(weights)),
        names=names,
        notes=(_NOTE,),
        design=design,
        matrix=design(train.inputs),
        beta=beta,
        efron=efron,
        penalty=penalty,
        entry=entry,
        strata=strata,
    )
    return replace(made, notes=(*made.notes, _UNFINISHED)) if made.unfinished() else made
