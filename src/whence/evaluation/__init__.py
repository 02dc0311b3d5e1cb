"""Evaluation: do the scores predict what retraining does?"""

from whence.evaluation.agreement import LOOCorrelation as LOOCorrelation
from whence.evaluation.agreement import loo_correlation as loo_correlation
from whence.evaluation.curves import DetectionCurve as DetectionCurve
from whence.evaluation.curves import RemovalCurve as RemovalCurve
from whence.evaluation.curves import detection_curve as detection_curve
from whence.evaluation.curves import removal_curve as removal_curve
from whence.evaluation.metrics import LDS as LDS
from whence.evaluation.metrics import NoiseCeiling as NoiseCeiling
from whence.evaluation.metrics import lds as lds
from whence.evaluation.metrics import noise_ceiling as noise_ceiling
