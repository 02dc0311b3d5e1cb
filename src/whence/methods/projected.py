r"""Influence in a random subspace: gradients projected once, and kept.

With P a projection of gradients to d numbers, E PᵀP = I, and φᵢ = P ∇f(zᵢ) for an output f,

```
score[q, i] = (wᵢ/n) (P ∇m_q)ᵀ (K + λ I)⁻¹ (P gᵢ),    K = (1/n) Σ wᵢ φᵢ φᵢᵀ
```

f = ℓ makes K the projected empirical Fisher (LoGra); f = the margin, of which ℓ is a function so
that gᵢ = ∂ℓ/∂f φᵢ, makes it TRAK's. Layers multiply, so their gradients Σ_t δ_t a_tᵀ can be
projected before the product: (P_out δ_t)(P_in a_t)ᵀ; no gradient of an example is then ever formed.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor

from whence.errors import InvalidInput, NotPositiveDefinite, UnsupportedModel
from whence.linalg.cholesky import Cholesky
from whence.linalg.structured import Dense
from whence.methods.tracin import points_of
from whence.network.gradients import Contribution, Lookup, Outer
from whence.network.objective import ModuleObjective
from whence.objective.losses import measure_of
from whence.objective.measures import Measure, OutputFunction, measure_name
from whence.objective.objective import Objective
from whence.objective.trained import Examples
from whence.scores import Scores, average

Projection = Literal["factored", "dense"]
_Features = Callable[[Objective, Examples, Measure], Tensor]

_SIDE, _WHOLE = 16, 2048  # sizes unless given
_BUDGET = 2**27  # numbers of a dense projection that stand at once: 512 MB of float32
_AGREEMENT = 1e-3  # in float32; a loss is a function of f or far from it


def projected(
    objective: Objective,
    queries: Any,
    *,
    output: str | Measure | OutputFunction = "loss",
    projection: Projection = "factored",
    size: int | None = None,
    measure: str | Measure | OutputFunction = "loss",
    damping: float | None = None,
    checkpoints: Sequence[Tensor] | None = None,
    seed: int = 0,
    rtol: float = 2e-2,
) -> Scores:
    r"""Predict removals from randomly projected gradients: LoGra by default, TRAK with the margin.

    score[q, i] = (wᵢ/n) (P ∇m_q)ᵀ (K + λ I)⁻¹ (P gᵢ), K = (1/n) Σ wᵢ φᵢ φᵢᵀ with φᵢ = P ∇f(zᵢ).
    LoGra: f = ℓ, P factored. TRAK: `output="margin", projection="dense"`.

    Args:
        objective: R at θ̂; its own parameters are the one checkpoint if `checkpoints` is `None`.
        queries: (x, y) of q queries, or of one.
        output: f, whose gradients' second moment stands for the curvature: "loss", "margin", or a
            function (outputs, targets) -> [b] of which the loss is a function.
        projection: "factored" projects the two sides of each layer's gradients before their
            product, to size × size numbers per weight, and the parameters without such a product
            together and whole, to as many. "dense" projects the whole gradient to `size` numbers.
        size: Per side 16 if `None`, or d = 2,048 for "dense". What is no larger than it is kept.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        damping: λ >= 0; the mean eigenvalue tr(K)/d if `None`. The penalty l2 is added to it.
        checkpoints: θ_t, each [p], as `objective.params`; scores are averaged over them.
        seed: Of P.
        rtol: The relative error, in root mean square, that scores may have beside that of P, which
            is far larger: from 2e-2 on, passes through a float32 network are in bfloat16 where the
            hardware is made for it and the network bears it.

    Returns:
        Scores with values [q, n]: a predicted change of the measure on removal, 1/n included.

    Raises:
        InvalidInput: If queries, checkpoints or options cannot be used.
        UnsupportedModel: If the loss is not a function of the output.
        NotPositiveDefinite: If K is singular and not damped.

    Cost:
        Factored: one forward and one backward pass over the training data, whatever d; the
        projected gradients, n d numbers, are kept with the objective, and min(n, d)³/3 operations
        to factor. Dense: 2 n p d operations besides, and one pass for each 2²⁷/p dimensions. Then a
        query costs its gradient and products with the kept numbers.

    References:
        Choe et al. (2024), "What is Your Data Worth to GPT?", section 3 (LoGra); Park et al.
        (2023), "TRAK: Attributing Model Behavior at Scale", section 3.

    Examples:
        >>> import torch, whence
        >>> x, y = torch.randn(30, 4), torch.arange(30) % 3
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(),
        ...                             torch.nn.Linear(8, 3))
        >>> objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
        >>> whence.projected(objective, (x[:2], y[:2])).values.shape
        (2, 30)
    """
    if projection not in ("factored", "dense"):
        raise InvalidInput(f"Expected projection 'factored' or 'dense'. Got {projection!r}.")
    chosen = size if size is not None else _SIDE if projection == "factored" else _WHOLE
    if chosen < 1 or seed < 0:
        raise InvalidInput(f"Expected size >= 1 and seed >= 0. Got size={chosen}, seed={seed}.")
    if damping is not None and not 0 <= damping < np.inf:
        raise InvalidInput(f"Expected a finite damping >= 0, or None. Got {damping}.")
    if not 0 < rtol < 1:
        raise InvalidInput(f"Expected 0 < rtol < 1. Got {rtol}. The default is 2e-2.")
    points = points_of(objective, checkpoints)
    asked = objective.examples(queries)
    plan = _Plan(output, projection, chosen, seed, rtol)
    if checkpoints is None:
        return _scores(objective, asked, plan, measure, damping)
    return average([_scores(objective.at(p), asked, plan, measure, damping) for p in points])


@final
@dataclass(frozen=True)
class _Plan:
    """What is projected, and how."""

    output: str | Measure | OutputFunction
    projection: Projection
    size: int
    seed: int
    rtol: float

    def seen(self, objective: Objective) -> Objective:
        """Return the objective in the precision of its passes."""
        if not isinstance(objective, ModuleObjective):
            return objective
        # Neither the training gradients nor those of the queries are exact then.
        return objective.within(self.rtol / 2)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class _Kept:
    """What is paid once for all queries of an objective.

    Args:
        features: P, from examples and a measure to projected gradients [b, d].
        rows: φᵢ, [n, d].
        slopes: ∂ℓ/∂f of each training example, [n], so that P gᵢ = slopeᵢ φᵢ.
        inverses: (K + μ I)⁻¹ by the damping λ asked for, with the λ that was used.
    """

    features: _Features
    rows: Tensor
    slopes: Tensor
    inverses: dict[float | None, tuple[Callable[[Tensor], Tensor], float]]


_KEPT: weakref.WeakKeyDictionary[Objective, dict[_Plan, _Kept]] = weakref.WeakKeyDictionary()


def _scores(
    objective: Objective, asked: Examples, plan: _Plan, measure: Any, damping: float | None
) -> Scores:
    """Return the scores at one checkpoint."""
    plans = _KEPT.setdefault(objective, {})
    if plan not in plans:
        plans[plan] = _project(objective, plan)
    kept = plans[plan]
    if damping not in kept.inverses:
        kept.inverses[damping] = _inverse(objective, kept.rows, damping)
    inverse, amount = kept.inverses[damping]
    columns = kept.features(plan.seen(objective), asked, measure_of(objective.loss, measure)).T
    n, d = kept.rows.shape
    scale = objective.weights * kept.slopes / n
    values = ((kept.rows @ inverse(columns)) * scale.unsqueeze(1)).T
    size = f"{plan.size} x {plan.size} per layer" if plan.projection == "factored" else "dense"
    return Scores(
        values=values.double().cpu().numpy(),
        query_ids=asked.ids,
        train_ids=objective.train.ids,
        positions=np.arange(n),
        n=n,
        method=f"influence in {d} projected dimensions ({size}, seed {plan.seed}), second moment "
        f"of the gradients of the {measure_name(plan.output)}, damping {amount:.3g} "
        f"({'their mean eigenvalue' if damping is None else 'as asked'})",
        measure=measure_name(measure),
    )


def _project(objective: Objective, plan: _Plan) -> _Kept:
    """Return the projected gradients of the output function at the training examples."""
    function = measure_of(objective.loss, plan.output)
    slopes = torch.ones_like(objective.weights)
    if function != objective.loss:
        slopes = _slopes(objective, function)
    features: _Features = _Whole(plan.size, plan.seed)
    if plan.projection == "factored" and isinstance(objective, ModuleObjective):
        features = _factored(objective, plan.size, plan.seed)
    elif plan.projection == "factored":  # no layers: as many numbers, of the whole gradient
        features = _Whole(plan.size**2, plan.seed)
    rows = features(plan.seen(objective), objective.train, function)
    return _Kept(features=features, rows=rows, slopes=slopes, inverses={})


def _inverse(
    objective: Objective, rows: Tensor, damping: float | None
) -> tuple[Callable[[Tensor], Tensor], float]:
    """Return C ↦ (K + (l2 + λ) I)⁻¹ C and λ, from the smaller of the two Gram matrices."""
    n, d = rows.shape
    scaled = rows * (objective.weights / n).sqrt().unsqueeze(1)
    gram = (scaled.T @ scaled if d <= n else scaled @ scaled.T).double()
    amount = float(gram.diagonal().sum()) / d if damping is None else damping
    total = amount + float(objective.l2.mean())
    if d > n and total == 0:
        raise NotPositiveDefinite(
            f"Expected damping > 0 for {n} examples in {d} dimensions, where the second moment of "
            "the gradients is singular. Got 0. Leave damping out, or lower size."
        )
    gram.diagonal().add_(total)
    inverse = Cholesky().prepare(Dense(gram))
    if d <= n:
        return lambda columns: (inverse @ columns.double()).to(rows), amount

    def woodbury(columns: Tensor) -> Tensor:
        inside = inverse @ (scaled @ columns).double()
        return (columns - scaled.T @ inside.to(rows)) / total

    return woodbury, amount


@final
@dataclass(frozen=True)
class _Whole:
    """A dense projection: random signs over √d, drawn column by column, in blocks that fit.

    Args:
        size: d; gradients of at most d numbers are left as they are.
        seed: Of the signs.
    """

    size: int
    seed: int

    def __call__(self, objective: Objective, examples: Examples, measure: Measure) -> Tensor:
        """Return the projected gradients, [b, d]."""
        blocks = _columns(objective.params, self.size, self.seed)
        return torch.cat([objective.gradient_dot(examples, measure, V) for V in blocks], 1)


@final
@dataclass(frozen=True, eq=False)
class _Factored:
    """A projection of each side of what multiplies, and one of all the rest together.

    Args:
        sides: By the place of a weight, its two projections [m, r] and [d, r′].
        rest: By the place of another parameter, its rows of the dense projection, [·, k].
    """

    sides: dict[int, tuple[Tensor, Tensor]]
    rest: dict[int, Tensor]

    def __call__(self, objective: Objective, examples: Examples, measure: Measure) -> Tensor:
        """Return the projected gradients, [b, d]."""
        assert isinstance(objective, ModuleObjective)
        return torch.cat([self._batch(batch) for batch in objective.pieces(examples, measure)])

    def _batch(self, pieces: list[tuple[slice, Contribution]]) -> Tensor:
        """Return the projected gradients of a micro-batch."""
        found: dict[int, Tensor] = {}
        for where, piece in pieces:
            # All the rest adds up in one place, before every weight's.
            if where.start in self.rest:
                place, part = -1, piece.dot(self.rest[where.start])
            else:
                place, part = where.start, _two_sided(piece, *self.sides[where.start])
            found[place] = found[place] + part if place in found else part
        return torch.cat([found[place] for place in sorted(found)], 1)


def _factored(objective: ModuleObjective, size: int, seed: int) -> _Factored:
    """Return the projection for the layers of a module, as its first example shows them."""
    first = objective.train.subset(np.arange(1))
    like = objective.params
    sides: dict[int, tuple[Tensor, Tensor]] = {}
    others: dict[int, slice] = {}
    for where, piece in next(objective.pieces(first, objective.loss)):
        lengths = _lengths(piece)
        if lengths is None:
            others[where.start] = where
        elif where.start not in sides:
            # Each weight from a seed of its own, the same in whatever company.
            generator = torch.Generator().manual_seed(_mixed(seed, where.start))
            left, right = (_orthogonal(length, size, generator).to(like) for length in lengths)
            sides[where.start] = left, right
    count = sum(where.stop - where.start for where in others.values())
    if count == 0:
        return _Factored(sides, {})
    # No more dimensions than fit the budget as one block.
    whole = min(size**2, max(1, _BUDGET // count))
    rows = torch.cat(list(_columns(like[:count], whole, seed)), 1)
    rest = {}
    for where in others.values():
        length = where.stop - where.start
        rest[where.start], rows = rows[:length], rows[length:]
    return _Factored(sides, rest)


def _lengths(piece: Contribution) -> tuple[int, int] | None:
    """Return the two sides of a gradient that is a sum of outer products, or `None`."""
    if isinstance(piece, Outer):
        return piece.left.shape[2], piece.right.shape[2]
    if isinstance(piece, Lookup):
        return piece.size, piece.left.shape[2]
    return None


def _two_sided(piece: Contribution, left: Tensor, right: Tensor) -> Tensor:
    """Return Σ_t (left ᵀ δ_t)(rightᵀ a_t)ᵀ of each example, flat; a lookup is a one-hot δ."""
    if isinstance(piece, Outer):
        dtype = piece.left.dtype
        first, second = piece.left @ left.to(dtype), piece.right @ right.to(dtype)
    else:
        assert isinstance(piece, Lookup)
        first, second = left[piece.indices], piece.left @ right
    return torch.bmm(first.mT, second).flatten(1).to(left.dtype)


def _orthogonal(length: int, size: int, generator: torch.Generator) -> Tensor:
    """Return U [length, r], r = min(size, length), with E U Uᵀ = I: orthogonal columns, scaled."""
    r = min(size, length)
    normal = torch.randn(length, r, dtype=torch.float64, generator=generator)
    basis: Tensor = torch.linalg.qr(normal).Q
    return basis * math.sqrt(length / r)


def _columns(like: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    """Yield the columns of a dense projection of len(like) numbers to `size`, in blocks."""
    p = len(like)
    if p <= size:
        yield torch.eye(p, dtype=like.dtype, device=like.device)
        return
    generator = torch.Generator().manual_seed(seed)
    step = max(1, _BUDGET // p)
    for start in range(0, size, step):
        shape = min(step, size - start), p
        signs = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8)
        yield signs.to(like).mul_(2).sub_(1).div_(size**0.5).T


def _mixed(*numbers: int) -> int:
    """Return one seed made of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _slopes(objective: Objective, function: Measure) -> Tensor:
    """Return ∂ℓ/∂f [n] where the loss is a function of f, and raise where it is not."""
    train = objective.train
    outputs = objective.outputs(train)
    of_loss = objective.loss.gradient(outputs, train.targets).flatten(1)
    of_output = function.gradient(outputs, train.targets).flatten(1)
    squares = of_output.square().sum(1)
    slopes = (of_loss * of_output).sum(1) / squares.clamp_min(torch.finfo(squares.dtype).tiny)
    gap = (of_loss - slopes.unsqueeze(1) * of_output).norm()
    if not float(gap) <= _AGREEMENT * float(of_loss.norm()):
        raise UnsupportedModel(
            "Expected an output function that decides the loss, as the margin of one prediction "
            f"does. Got {measure_name(function)}, whose gradients leave {float(gap):.1e} of the "
            "loss's. For sequences and several outputs leave output='loss'."
        )
    return slopes
