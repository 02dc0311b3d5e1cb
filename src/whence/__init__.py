"""Which training data made the model do this?"""

from whence.applications.changes import edit as edit
from whence.applications.changes import group_effect as group_effect
from whence.applications.changes import perturbation as perturbation
from whence.applications.influence import influence as influence
from whence.applications.influence import influence_on_parameters as influence_on_parameters
from whence.applications.influence import self_influence as self_influence
from whence.applications.retraining import leave_one_out as leave_one_out
