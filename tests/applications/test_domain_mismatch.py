"""Groups behind errors on a slice, against influence row by row and refits by scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import whence
from whence.applications.domain_mismatch import DomainMismatch, domain_mismatch
from whence.errors import InvalidInput, UnsupportedModel


def hospital() -> tuple[pd.DataFrame, np.ndarray]:
    """Three age groups; in training all children but two are readmitted, against what x says."""
    rng = np.random.default_rng(3)
    n = 300
    age = np.r_[np.zeros(6), rng.integers(1, 3, n - 6)]
    x = pd.DataFrame(
        {
            "stay": rng.normal(size=n),
            "visits": rng.normal(size=n),
            "child": (age == 0) * 1.0,
            "old": (age == 2) * 1.0,
        },
        index=[f"row {i}" for i in range(n)],
    )
    y = (x["stay"] + 0.5 * rng.normal(size=n) > 0).to_numpy(int)
    y[:6] = [1, 1, 1, 1, 0, 0]
    return x, y


def slices(**options: object) -> tuple[DomainMismatch, LogisticRegression]:
    x, y = hospital()
    model = LogisticRegression(C=10.0, tol=1e-12, max_iter=10_000).fit(x, y)
    children = x.iloc[:5].assign(stay=-0.2)
    options = options or {"columns": ["child", "old"]}
    objective = whence.from_sklearn(model, x, y)
    return domain_mismatch(objective, (children, np.zeros(5, int)), **options), model


def test_the_children_drive_the_errors_on_children() -> None:
    found, model = slices()
    x, y = hospital()
    frame = found.to_frame()
    assert frame["group"].tolist()[0] == "child = 1"
    assert frame["feature"].iloc[0] == "child"
    assert frame["per_row"].iloc[0] > 5 * frame["per_row"].iloc[1]
    queries = x.iloc[:5].assign(stay=-0.2), np.zeros(5, int)
    each = whence.influence(whence.from_sklearn(model, x, y), queries).values.mean(0)
    np.testing.assert_allclose(found.influence, each, atol=1e-12)
    by_name = {group.name: group for group in found.groups}
    old = by_name["old = 1"]
    assert (x["old"].to_numpy()[old.positions] == 1).all()
    assert len(old.positions) == x["old"].sum()
    assert old.total == pytest.approx(each[x["old"] == 1].sum())
    assert old.per_row == pytest.approx(np.abs(each[x["old"] == 1]).mean())


def test_effect_is_a_refit_without_the_group() -> None:
    found, model = slices()
    x, y = hospital()
    queries = x.iloc[:5].assign(stay=-0.2)

    def loss(fitted: LogisticRegression) -> float:
        return float(-np.log(fitted.predict_proba(queries)[:, 0]).mean())

    assert found.value == pytest.approx(loss(model), rel=1e-6)
    for group in found.groups:
        keep = np.setdiff1d(np.arange(len(x)), group.positions)
        refit = LogisticRegression(C=10.0, tol=1e-12, max_iter=10_000).fit(x.iloc[keep], y[keep])
        assert group.effect == pytest.approx(loss(refit) - loss(model), abs=1e-5)


def test_input_attribution_is_the_mean_size_of_perturbations_per_deviation() -> None:
    found, model = slices()
    x, y = hospital()
    objective = whence.from_sklearn(model, x, y)
    queries = x.iloc[:5].assign(stay=-0.2), np.zeros(5, int)
    pull = np.abs(whence.perturbation(objective, np.arange(6), queries)).mean(0)
    spread = [x.stay.std(ddof=0), x.visits.std(ddof=0), 1.0, 1.0]  # from 0 to 1 in indicators
    expected = pull * spread
    np.testing.assert_allclose(found.groups[0].input_attribution, expected, atol=1e-12)


def test_groups_given_by_label_and_by_name() -> None:
    x, _ = hospital()
    labels = np.where(x["child"] == 1, "child", np.where(x["old"] == 1, "old", "adult"))
    by_label, _ = slices(groups=labels, order="newton")
    by_name, _ = slices(groups={"child": np.arange(6)}, order="first")
    assert by_label.groups[0].name == "child"
    assert len(by_label.groups) == 3
    child = by_name.groups[0]
    assert child.effect == pytest.approx(child.total)
    np.testing.assert_allclose(child.influence, by_label.groups[0].influence)


def test_numbers_are_cut_at_quartiles_and_sparse_columns_are_read() -> None:
    found, _ = slices(columns="stay", order="newton")
    assert found.to_frame()["size"].tolist() == [75, 75, 75, 75]
    x, y = hospital()
    matrix = sparse.csr_array(x.to_numpy())
    model = LogisticRegression(tol=1e-10, max_iter=10_000).fit(matrix, y)
    objective = whence.from_sklearn(model, matrix, y)
    of_array = domain_mismatch(objective, (matrix[:5], y[:5]), columns=2, order="first")
    assert sorted(group.name for group in of_array.groups) == ["column 2 = 0", "column 2 = 1"]


@pytest.mark.parametrize("kind", ["uint8", "int16", "UInt8", "float32"])
def test_numbers_of_any_kind_are_cut_at_quartiles(kind: str) -> None:
    y = np.arange(60) % 2
    x = pd.DataFrame({"level": np.arange(60) % 30}).astype(kind)
    model = LogisticRegression().fit(x, y)
    found = domain_mismatch(
        whence.from_sklearn(model, x, y), (x[:4], y[:4]), columns="level", order="first"
    )
    assert sorted(len(group.positions) for group in found.groups) == [14, 14, 16, 16]


def test_quartiles_are_named_without_what_rounding_leaves() -> None:
    x = pd.DataFrame({"ash": 1.36 + 0.07 * np.arange(60)})  # pandas writes 1.3590000000000002
    y = np.arange(60) % 2
    assert max(len(str(each)) for each in pd.qcut(x["ash"], 4)) > 20
    trained = whence.from_sklearn(LogisticRegression().fit(x, y), x, y)
    found = domain_mismatch(trained, (x[:4], y[:4]), columns="ash", order="first")
    assert max(len(group.name) for group in found.groups) < 25
    assert "ash = (1.359, 2.392]" in {group.name for group in found.groups}


def test_ten_values_are_ten_groups_and_missing_ones_another() -> None:
    x, y = hospital()
    few = x.assign(stay=x["stay"], ward=np.arange(300) % 10 + 0.25, room=np.arange(300) % 11)
    model = LogisticRegression(C=10.0, tol=1e-12, max_iter=10_000).fit(few, y)
    trained = whence.from_sklearn(model, few, y)
    query = few.iloc[:2], y[:2]
    by_ward = domain_mismatch(trained, query, columns=["ward"], order="first")
    assert sorted(group.name for group in by_ward.groups) == [f"ward = {k}.25" for k in range(10)]
    assert len(domain_mismatch(trained, query, columns="room", order="first").groups) == 4
    labels = [None, *np.where(np.arange(1, 300) < 100, "a", "b")]
    found = domain_mismatch(trained, query, groups=labels, order="first")
    by_name = {group.name: group.positions.tolist() for group in found.groups}
    assert by_name == {"no group": [0], "a": list(range(1, 100)), "b": list(range(100, 300))}
    frame = found.to_frame()
    assert frame["per_row"].is_monotonic_decreasing
    assert "Sorted by per_row" in str(found)
    assert frame["strength"].tolist() == [g.input_attribution.max() for g in found.groups]
    ranks = domain_mismatch(trained, query, groups=labels, order="first", method=whence.TracIn())
    assert {group.feature for group in ranks.groups} == {None}
    filled = make_pipeline(SimpleImputer(), clone(model))
    gaps = few.assign(ward=few["ward"].where(np.arange(300) > 2))
    trained = whence.from_sklearn(filled.fit(gaps, y), gaps, y)
    found = domain_mismatch(trained, (gaps.iloc[9:], y[9:]), columns="ward", order="first")
    assert found.groups[0].name.startswith("ward ")
    by_name = {group.name: group.positions.tolist() for group in found.groups}
    assert by_name["ward is missing"] == [0, 1, 2]


def test_page(tmp_path: Path) -> None:
    found, _ = slices()
    page = found.report(tmp_path / "groups.html").read_text()
    assert "child = 1" in page
    assert "acts through" in page


def test_refused() -> None:
    with pytest.raises(InvalidInput, match="either columns="):
        slices(columns="child", groups=["a"])
    with pytest.raises(InvalidInput, match="'shoe size'"):
        slices(columns="shoe size")
    with pytest.raises(InvalidInput, match="0 to 3"):
        slices(columns=4)
    with pytest.raises(InvalidInput, match="one per training row"):
        slices(groups=["a", "b"])
    with pytest.raises(InvalidInput, match="pass its name as columns="):
        slices(groups="child")
    with pytest.raises(InvalidInput, match="holds all"):
        slices(groups={"all": np.arange(300)})
    module = torch.nn.Linear(2, 2)
    inputs, targets = torch.randn(8, 2), torch.tensor([0, 1] * 4)
    objective = whence.from_torch(module, whence.CrossEntropy(), (inputs, targets), l2=0.1)
    with pytest.raises(UnsupportedModel, match="rows with columns"):
        domain_mismatch(objective, (inputs[:1], targets[:1]), columns="x")


def test_printed_it_has_its_groups() -> None:
    found, _ = slices()
    first, *rows, words = str(found).splitlines()
    assert "effect: the change of that mean without the group (order='refit')" in words
    assert words in found.card().words
    assert first.startswith(f"{len(found.groups)} groups of 300 training rows")
    assert len(rows) == 1 + len(found.groups)
    assert all(group.name in row for group, row in zip(found.groups, rows[1:], strict=True))
    with pytest.raises(InvalidInput, match="Got neither"):
        domain_mismatch(found.trained, (hospital()[0][:2], np.zeros(2, int)))


def test_features_that_a_method_does_not_follow_are_not_printed() -> None:
    x, y = hospital()
    forest = RandomForestClassifier(5, random_state=0).fit(x, y)
    found = domain_mismatch(whence.from_sklearn(forest, x, y), (x[:5], y[:5]), columns="child")
    assert found.to_frame()["feature"].isna().all()
    assert "feature" not in str(found)
    assert "feature" in str(slices()[0])


def beside(**columns: object) -> tuple[whence.Trained, pd.DataFrame, np.ndarray]:
    """The hospital's model of two columns, its rows with others beside them."""
    x, y = hospital()
    x = x.reset_index(drop=True).assign(**columns)
    named = make_column_transformer(("passthrough", ["stay", "visits"]))
    model = make_pipeline(named, LogisticRegression(tol=1e-10)).fit(x, y)
    return whence.from_sklearn(model, x, y), x, y


def sizes(column: str, **columns: object) -> list[int]:
    trained, x, y = beside(**columns)
    found = domain_mismatch(trained, (x[:3], y[:3]), columns=column, order="first")
    return sorted(len(group.positions) for group in found.groups)


def test_dates_and_small_floats_are_cut_at_their_quartiles() -> None:
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(300), unit="D")
    assert sizes("day", day=days) == [75] * 4
    assert sizes("wait", wait=pd.to_timedelta(np.arange(300), unit="h")) == [75] * 4
    assert sizes("small", small=np.arange(300).astype(np.float16)) == [75] * 4


def test_a_column_of_mostly_one_value_is_cut_at_its_other_values() -> None:
    gain = np.where(np.arange(300) < 260, 0.0, np.arange(300))
    assert sizes("gain", gain=gain) == [10, 10, 10, 270]


def test_what_makes_no_groups_is_said() -> None:
    assert sizes("far", far=np.r_[np.inf, np.arange(299.0)]) == [74, 75, 75, 76]
    labels = np.where(np.arange(300) < 100, "a", "b")
    trained, x, y = beside()
    options = {"order": "first"}
    flat, column = (
        domain_mismatch(trained, (x[:3], y[:3]), groups=each, **options)
        for each in (labels, labels[:, None])
    )
    assert flat.to_frame().equals(column.to_frame())
    with pytest.raises(InvalidInput, match="one label per training row"):
        domain_mismatch(trained, (x[:3], y[:3]), groups=[("a", 1), ("b", 2)] * 150, **options)
