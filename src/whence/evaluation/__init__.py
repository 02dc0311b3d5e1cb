"""Evaluation: do the scores predict what retraining does?"""

from whence.evaluation.agreement import Agreement as Agreement
from whence.evaluation.agreement import loo_correlation as loo_correlation
from whence.evaluation.curves import BrittlenessCurve as BrittlenessCurve
from whence.evaluation.curves import DetectionCurve as DetectionCurve
from whence.evaluation.curves import brittleness_curve as brittleness_curve
from whence.evaluation.curves import detection_curve as detection_curve
from whence.evaluation.ensemble import RetrainingEnsemble as RetrainingEnsemble
from whence.evaluation.ensemble import Together as Together
from whence.evaluation.ensemble import load_ensemble as load_ensemble
from whence.evaluation.ensemble import retraining_ensemble as retraining_ensemble
from whence.evaluation.metrics import LDS as LDS
from whence.evaluation.metrics import NoiseCeiling as NoiseCeiling
from whence.evaluation.metrics import lds as lds
from whence.evaluation.metrics import noise_ceiling as noise_ceiling
from whence.evaluation.retraining import replays as replays
from whence.evaluation.retraining import top_k_removal as top_k_removal
from whence.renamed import old_names
from whence.storage import digest

fingerprint = digest  # what an ensemble depends on
__getattr__ = old_names(
    __name__,
    {
        "Bank": "RetrainingEnsemble",
        "subset_bank": "retraining_ensemble",
        "load_bank": "load_ensemble",
    },
)
