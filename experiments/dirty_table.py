"""The case study of the documentation: from a file of hospital stays to a checked model.

`WHENCE_DATA=folder python -m experiments.dirty_table` prints what the page quotes, and keeps it in
`benchmarks/results/dirty_table.json`; a minute on two cores.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import whence
from experiments.datasets.files import read

_RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "dirty_table.json"
_TRAIN, _REST = 6_000, 4_000
# Discharged as deceased or to a hospice (IDs_mapping.csv): such a patient is not readmitted.
_GONE = {11, 13, 14, 19, 20, 21}
_NUMBERS = [
    "time_in_hospital",
    "num_lab_procedures",
    "num_procedures",
    "num_medications",
    "number_outpatient",
    "number_emergency",
    "number_inpatient",
    "number_diagnoses",
]
_LEVELS = ["race", "gender", "age", "admission_type_id", "insulin", "change", "diabetesMed"]


def table() -> pd.DataFrame:
    """Ten thousand stays, as the file has them."""
    frame = pd.read_csv(io.BytesIO(read("diabetes130/diabetic_data.csv.gz")), low_memory=False)
    return frame.sample(_TRAIN + _REST, random_state=0)


def pipeline() -> Pipeline:
    """The model: logistic regression on standardized numbers and levels."""
    levels = OneHotEncoder(handle_unknown="ignore", min_frequency=20)
    columns = make_column_transformer((StandardScaler(), _NUMBERS), (levels, _LEVELS))
    return make_pipeline(columns, LogisticRegression(C=0.1, tol=1e-8, max_iter=2000))


def judged(model: Any, x: pd.DataFrame, y: Any) -> dict[str, float]:
    """Log loss and area under the curve on stays that the model has not seen."""
    shares = model.predict_proba(x)[:, 1]
    return {"log loss": float(log_loss(y, shares)), "AUC": float(roc_auc_score(y, shares))}


def found() -> dict[str, Any]:
    """What each step of the case study shows."""
    frame = table()
    y = (frame["readmitted"] != "NO").to_numpy().astype(int)
    x = frame[[*_NUMBERS, *_LEVELS]]
    gone = frame["discharge_disposition_id"].isin(_GONE).to_numpy()
    train, rest = np.arange(_TRAIN), np.arange(_TRAIN, len(frame))
    asked = rest[~gone[rest]]  # the stays that the model is for
    model = pipeline().fit(x.iloc[train], y[train])
    trained = whence.from_sklearn(model, x.iloc[train], y[train])
    queries = x.iloc[asked], y[asked]
    discharge = frame["discharge_disposition_id"].iloc[train].astype(str).to_numpy()
    mismatch = whence.domain_mismatch(trained, queries, groups=discharge)
    groups = mismatch.to_frame()
    worst = groups.sort_values("effect").head(5)
    dropped = train[gone[train]]
    predicted = whence.group_effect(trained, dropped, queries).mean()
    refit = whence.group_effect(trained, dropped, queries, order="refit").mean()
    kept = train[~gone[train]]
    cleaned = clone(model).fit(x.iloc[kept], y[kept])
    one = asked[:1]
    after = whence.from_sklearn(cleaned, x.iloc[kept], y[kept])
    explanation = whence.explain(after, (x.iloc[one], y[one]), k=5)
    checked = explanation.verify(20)
    before, clean = judged(model, *queries), judged(cleaned, *queries)
    return {
        "rows": {"train": len(train), "asked": len(asked), "gone": int(gone[train].sum())},
        "missing": {name: float((frame[name] == "?").mean()) for name in ("weight", "payer_code")},
        "groups": worst[["group", "size", "effect"]].to_dict(orient="records"),
        "gone, readmitted": float(y[dropped].mean()),
        "others, readmitted": float(y[kept].mean()),
        "predicted change of the log loss": float(predicted),
        "change after refitting": float(refit),
        "before": before,
        "cleaned": clean,
        "clone less refit": float(clean["log loss"] - before["log loss"] - refit),
        "verified": {"R": checked.r, "slope": checked.slope},
    }


def main() -> None:
    """Print and keep what the page quotes."""
    result = found()
    text = json.dumps(result, indent=1)
    print(text)
    _RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
