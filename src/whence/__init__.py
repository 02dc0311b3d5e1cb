"""Which training data made the model do this?"""

from whence.adapters.sklearn import from_sklearn
from whence.adapters.torch import from_torch
from whence.applications.changes import edit, group_effect, perturbation
from whence.applications.explain import explain
from whence.applications.influence import influence, influence_on_parameters, self_influence
from whence.applications.retraining import leave_one_out
from whence.curvature.kronecker import EKFAC, KFAC
from whence.methods.metagradient import metagradient
from whence.methods.metasmoothness import metasmoothness
from whence.objective.losses import (
    CrossEntropy,
    Logistic,
    SmoothHinge,
    SquaredError,
    SquaredHinge,
    Tweedie,
)
from whence.objective.recipe import Recipe
from whence.objective.training import train

__all__ = [
    "EKFAC",
    "KFAC",
    "CrossEntropy",
    "Logistic",
    "Recipe",
    "SmoothHinge",
    "SquaredError",
    "SquaredHinge",
    "Tweedie",
    "edit",
    "explain",
    "from_sklearn",
    "from_torch",
    "group_effect",
    "influence",
    "influence_on_parameters",
    "leave_one_out",
    "metagradient",
    "metasmoothness",
    "perturbation",
    "self_influence",
    "train",
]
