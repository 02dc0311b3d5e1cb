"""Tables: hospital stays of diabetics, and tumors."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_diabetes

from experiments.datasets.files import at_hand, read
from experiments.datasets.split import Array, Split, in_two
from whence.errors import InvalidInput

_STAYS = "diabetes130/diabetic_data.csv.gz"
_COUNTS = (
    "time_in_hospital",
    "num_lab_procedures",
    "num_procedures",
    "num_medications",
    "number_outpatient",
    "number_emergency",
    "number_inpatient",
    "number_diagnoses",
)
_CATEGORIES = (
    "gender",
    "race",
    "age",
    "discharge_disposition_id",
    "max_glu_serum",
    "A1Cresult",
    "metformin",
    "repaglinide",
    "nateglinide",
    "chlorpropamide",
    "glimepiride",
    "acetohexamide",
    "glipizide",
    "glyburide",
    "tolbutamide",
    "pioglitazone",
    "rosiglitazone",
    "acarbose",
    "miglitol",
    "troglitazone",
    "tolazamide",
    "examide",
    "citoglipton",
    "insulin",
    "glyburide-metformin",
    "glipizide-metformin",
    "glimepiride-pioglitazone",
    "metformin-rosiglitazone",
    "metformin-pioglitazone",
    "change",
    "diabetesMed",
)


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """A hospital data set with one small group of patients singled out.

    Attributes:
        split: Features and labels, 1 for a readmitted patient.
        features: The name of each column [d].
        group: The column that is 1 for the patients of the group and 0 for the others.
    """

    split: Split
    features: tuple[str, ...]
    group: int


def diabetes130(*, seed: int = 2, n_per_class: int = 10_000, quick: bool = False) -> Hospital:
    """Stays of diabetics in 130 US hospitals; 1 means readmitted within 30 days.

    The 127 columns are 8 counts as they are, then the indicators of 31 categorical columns, each
    level in sorted order; of a column with two levels, only the second has an indicator. The
    default seed gives the very split of the paper: 24 children under 10 in the training half,
    3 of them readmitted, and test row 1742 is the child they explain.

    Args:
        seed: Of the shuffle that draws the training rows.
        n_per_class: Training rows of each class, 1 to 11,356; all other rows are for testing.
        quick: Take scikit-learn's diabetes progression table if the file is not at hand, with
            "readmitted" read as a progression above the mean, and patients under 24 as the group.

    Returns:
        Unscaled float64 features, [20000, 127] and [81766, 127]; the group is age [0-10).

    Raises:
        InvalidInput: If `n_per_class` is out of range.
        DataMissing: If the file is neither local nor to be downloaded.

    References:
        Strack et al., "Impact of HbA1c measurement on hospital readmission rates", 2014,
        doi 10.24432/C5230J. Use: Koh & Liang 2017, section 5.3.
    """
    if not 1 <= n_per_class <= 11_356:
        raise InvalidInput(
            "Expected 1 to 11,356 training rows per class. "
            f"Got {n_per_class}. The paper takes 10,000."
        )
    if quick and not at_hand(_STAYS):
        return _progression()
    # No missing values to be guessed: "None" is a level of two columns.
    stays = pd.read_csv(io.BytesIO(read(_STAYS)), dtype=str, keep_default_na=False)
    y = (stays["readmitted"] == "<30").to_numpy(np.int64)

    # The legacy generator, because the split of the paper was drawn with it.
    random = np.random.RandomState(seed)
    positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    random.shuffle(positive)
    random.shuffle(negative)
    train = np.concatenate([positive[:n_per_class], negative[:n_per_class]])
    test = np.concatenate([positive[n_per_class:], negative[n_per_class:]])
    random.shuffle(train)
    random.shuffle(test)

    blocks = [stays[list(_COUNTS)].to_numpy(np.float64)]
    features = list(_COUNTS)
    for name in _CATEGORIES:
        levels, indicators = _indicators(stays[name])
        blocks.append(indicators)
        features += [f"{name}_{level}" for level in levels]
    x = np.hstack(blocks)
    return Hospital(
        split=Split(
            name="Diabetes 130-US hospitals",
            x_train=x[train],
            y_train=y[train],
            x_test=x[test],
            y_test=y[test],
        ),
        features=tuple(features),
        group=features.index("age_[0-10)"),
    )


def drop_children(hospital: Hospital) -> Hospital:
    """Drop from the training rows all but the last of the group who was not readmitted.

    Args:
        hospital: The whole data set.

    Returns:
        The same, with 19,980 training rows by default: 3 of 4 children are readmitted where it
        was 3 of 24, so that the model learns from too few to trust.
    """
    split = hospital.split
    spared = (split.y_train == 0) & (split.x_train[:, hospital.group] == 1)
    kept = np.ones(len(spared), dtype=bool)
    kept[np.flatnonzero(spared)[:-1]] = False
    shorter = replace(split, x_train=split.x_train[kept], y_train=split.y_train[kept])
    return replace(hospital, split=shorter)


def breast_cancer() -> Split:
    """scikit-learn's tumors, malignant (0) or benign (1).

    Returns:
        Features standardized by the training rows, float64, [455, 30] and [114, 30].
    """
    data = load_breast_cancer()
    raw = in_two("scikit-learn breast cancer", data.data, data.target)
    mean, scale = raw.x_train.mean(axis=0), raw.x_train.std(axis=0)
    return replace(raw, x_train=(raw.x_train - mean) / scale, x_test=(raw.x_test - mean) / scale)


def _indicators(values: pd.Series[str]) -> tuple[list[str], Array]:
    """The levels, code numbers in order, and a 0/1 column for each; two levels share one."""
    levels = sorted(
        values.unique(), key=lambda level: (int(level) if level.isdigit() else 0, level)
    )
    first = 1 if len(levels) == 2 else 0
    codes = np.array(pd.Categorical(values, categories=levels).codes)
    return levels[first:], (codes[:, None] == np.arange(first, len(levels))).astype(np.float64)


def _progression() -> Hospital:
    """scikit-learn's diabetes table in the form of the hospital data."""
    table = load_diabetes(scaled=False)
    age, sex = table.data[:, 0], table.data[:, 1]
    decade = np.clip((age.astype(int) - 4) // 10, 1, 7)  # 14 to 24, 24 to 34, ...
    measured = (table.data[:, 2:] - table.data[:, 2:].mean(axis=0)) / table.data[:, 2:].std(axis=0)
    x = np.hstack([measured, (sex == sex.max())[:, None], decade[:, None] == np.arange(1, 8)])
    features = (
        *table.feature_names[2:],
        "sex",
        *(f"age_[{4 + 10 * d}-{14 + 10 * d})" for d in range(1, 8)),
    )
    y = table.target > table.target.mean()
    split = in_two("scikit-learn diabetes progression", x.astype(np.float64), y)
    return Hospital(split=split, features=features, group=features.index("age_[14-24)"))
