"""Which training data made the model do this?"""

from whence.adapters.sklearn import from_sklearn
from whence.applications.changes import edit, group_effect, perturbation
from whence.applications.explain import explain
from whence.applications.influence import influence, influence_on_parameters, self_influence
from whence.applications.retraining import leave_one_out

__all__ = [
    "edit",
    "explain",
    "from_sklearn",
    "group_effect",
    "influence",
    "influence_on_parameters",
    "leave_one_out",
    "perturbation",
    "self_influence",
]
