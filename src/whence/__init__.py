"""Which training data made the model do this?"""

from whence.adapters.frozen import from_frozen
from whence.adapters.sklearn import from_sklearn
from whence.adapters.torch import from_torch
from whence.adapters.transformers import from_transformers
from whence.applications import attacks, plot
from whence.applications.comparison import compare_influence
from whence.applications.diagnose import diagnose, spectrum
from whence.applications.domain_mismatch import domain_mismatch
from whence.applications.evaluate import evaluate
from whence.applications.explain import explain
from whence.applications.flip_set import flip_set
from whence.applications.label_errors import find_label_errors
from whence.applications.report import report
from whence.curvature.kronecker import EKFAC, KFAC
from whence.linalg.cg import CG
from whence.linalg.lissa import LiSSA
from whence.methods.changes import edit, group_effect, perturbation
from whence.methods.influence import Influence, influence, influence_on_parameters, self_influence
from whence.methods.leave_one_out import leave_one_out
from whence.methods.metagradient import metagradient
from whence.methods.method import Attribution, Method
from whence.methods.projected import projected
from whence.methods.representer import representer
from whence.methods.tokens import influence_by_token
from whence.methods.tracin import tracin
from whence.methods.unrolled import unrolled
from whence.objective.losses import (
    CrossEntropy,
    Logistic,
    SmoothHinge,
    SquaredError,
    SquaredHinge,
    Tweedie,
)
from whence.scores import average
from whence.training.metasmoothness import metasmoothness
from whence.training.recipe import Recipe
from whence.training.run import train

__all__ = [
    "CG",
    "EKFAC",
    "KFAC",
    "Attribution",
    "CrossEntropy",
    "Influence",
    "LiSSA",
    "Logistic",
    "Method",
    "Recipe",
    "SmoothHinge",
    "SquaredError",
    "SquaredHinge",
    "Tweedie",
    "attacks",
    "average",
    "compare_influence",
    "diagnose",
    "domain_mismatch",
    "edit",
    "evaluate",
    "explain",
    "find_label_errors",
    "flip_set",
    "from_frozen",
    "from_sklearn",
    "from_torch",
    "from_transformers",
    "group_effect",
    "influence",
    "influence_by_token",
    "influence_on_parameters",
    "leave_one_out",
    "metagradient",
    "metasmoothness",
    "perturbation",
    "plot",
    "projected",
    "report",
    "representer",
    "self_influence",
    "spectrum",
    "tracin",
    "train",
    "unrolled",
]
