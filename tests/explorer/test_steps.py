"""Each step is the user's own fit on the changed data, by a clone of the user's own pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingClassifier

import whence
from tests.explorer.data import N, fitted, pipeline, subject, table
from whence.errors import InvalidInput, UnsupportedModel
from whence.explorer import answers
from whence.explorer.session import Session, State
from whence.explorer.steps import Edit, Relabel, Remove, Step

X, Y = table()


@pytest.fixture(scope="module")
def state() -> State:
    return Session(subject()).state


def probability(state: State, at: int) -> float:
    """P of the last class that the state's model gives to a prediction."""
    outputs = state.model.outputs(state.query(at))
    return float(torch.sigmoid(outputs)[0, 0])


def expected(x: object, y: object, at: int) -> float:
    """The same by a clone of the user's pipeline, fitted on the changed data."""
    model = clone(pipeline()).fit(x, y)
    return float(model.predict_proba(X[N + at : N + at + 1])[0, 1])


def test_remove_is_a_fit_without_the_rows(state: State) -> None:
    after = state.after(Remove(positions=(3, 50, 77)), 4)
    kept = np.setdiff1d(np.arange(N), [3, 50, 77])
    assert probability(after, 4) == pytest.approx(expected(X.iloc[kept], Y[kept], 4), abs=1e-6)


def test_relabel_is_a_fit_on_the_other_labels(state: State) -> None:
    y = Y[:N].copy()
    y[[0, 5]] = np.where(y[[0, 5]] == "died", "survived", "died")
    step = Relabel(positions=(0, 5), labels=(y[0], y[5]))
    after = state.after(step, 2)
    assert probability(after, 2) == pytest.approx(expected(X[:N], y, 2), abs=1e-6)
    assert f"p0: {Y[0]} → {y[0]}" in after.done[0].words


@pytest.mark.parametrize(
    ("column", "value"), [(0, "33.5"), (1, "250"), (1, "−1e−05"), (2, "female")]
)
def test_edit_is_a_fit_on_the_edited_row(state: State, column: int, value: str) -> None:
    x = X[:N].astype({"age": float})
    x.iloc[9, column] = value if column == 2 else float(value.replace("−", "-"))
    after = state.after(Edit(position=9, column=column, value=value), 1)
    assert probability(after, 1) == pytest.approx(expected(x, Y[:N], 1), abs=1e-6)
    assert f"Changed {x.columns[column]} of p9" in after.done[0].words


def test_steps_follow_each_other_and_are_undone(state: State) -> None:
    session = Session(state.subject)
    y = Y[:N].copy()
    y[0] = "died" if y[0] == "survived" else "survived"
    session.take([Relabel(positions=(0,), labels=(y[0],)), Remove(positions=(40,))], 0)
    kept = np.delete(np.arange(N), 40)
    assert probability(session.state, 0) == pytest.approx(expected(X.iloc[kept], y[kept], 0), 1e-6)
    session.undo()
    assert probability(session.state, 0) == pytest.approx(expected(X[:N], y, 0), abs=1e-6)
    session.undo()
    session.undo()
    assert session.state.model is state.subject.trained


def test_all_steps_or_none(state: State) -> None:
    session = Session(state.subject)
    with pytest.raises(InvalidInput, match="Expected rows of the training data"):
        session.take([Remove(positions=(1,)), Remove(positions=(N,))], 0)
    assert session.state.done == ()


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Remove(positions=()), "Expected rows of the training data"),
        (Remove(positions=tuple(range(N))), "Expected rows to remain"),
        (Relabel(positions=(1,), labels=("lost",)), "Expected one of died, survived"),
        (Relabel(positions=(1,), labels=()), "Expected 1 labels"),
        (Edit(position=1, column=0, value="old"), "Expected a number"),
        (Edit(position=1, column=9, value="1"), "Expected a column from 0 to 2"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(state: State, step: Step, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        step.apply(state.model)


def test_trees_are_fitted_again_on_edited_rows() -> None:
    x, y = X[:N][["age", "fare"]].to_numpy(), Y[:N].copy()
    model = GradientBoostingClassifier(n_estimators=5, random_state=0)
    trained = whence.from_sklearn(clone(model).fit(x, y), x, y)
    y[4] = "died" if y[4] == "survived" else "survived"
    after = Relabel(positions=(4,), labels=(y[4],)).apply(trained)
    margins = clone(model).fit(x, y).decision_function(x[:5])
    outputs = after.outputs(trained.examples((x[:5], y[:5])))[:, 0]
    assert outputs.numpy() == pytest.approx(margins, abs=1e-5)


def test_a_network_says_what_it_cannot() -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    objective = whence.from_torch(torch.nn.Linear(3, 2), whence.CrossEntropy(), (x, y))
    with pytest.raises(UnsupportedModel, match="edited examples"):
        Relabel(positions=(1,), labels=("1",)).apply(objective)


def test_the_bars_are_influence_and_the_numbers_retraining(state: State) -> None:
    found = answers.answer(state, 5)
    rows = {row["position"]: row for side in found["sides"] for row in side["rows"]}
    strongest = max(rows, key=lambda at: rows[at]["size"])
    scores = whence.influence(state.model, state.query(5)).values[0]
    assert strongest == int(np.abs(scores).argmax())
    texts = answers.sizes(state, 5, [strongest])["texts"]
    kept = np.delete(np.arange(N), strongest)
    alone = expected(X.iloc[kept], Y[kept], 5)
    label = Y[N + 5]
    share = 100 * (alone if label == "survived" else 1 - alone)
    assert float(texts[strongest].removesuffix(" %")) == pytest.approx(share, abs=0.06)


def test_rows_are_counted_by_the_predictions_behind_which_they_are(state: State) -> None:
    found = answers.rows(state)
    scores = whence.influence(state.model, state.subject.queries).values
    against = np.zeros(N, dtype=int)
    for row in scores:
        first = np.argsort(row)[:10]
        against[first[row[first] < 0]] += 1
    assert [each["against"] for each in found["rows"][:5]] == sorted(against)[::-1][:5]


def test_groups_add_up_what_their_rows_do(state: State) -> None:
    found = answers.groups(state, 3, 2)["groups"]
    assert {each["name"] for each in found} == {"male", "female"}
    assert sum(len(each["positions"]) for each in found) == N
    quartiles = answers.groups(state, 3, 1)["groups"]
    assert len(quartiles) == 4
    changes = state.changes(3)
    totals = [abs(changes[each["positions"]].sum()) for each in quartiles]
    assert totals == sorted(totals, reverse=True)


def test_a_regression_says_by_how_much_it_is_off() -> None:
    from sklearn.linear_model import Ridge

    x, y = X[["age", "fare"]], X["age"] * 2.0 + np.arange(len(X)) % 7
    model = Ridge().fit(x[:N], y[:N])
    trained = whence.from_sklearn(model, x[:N], y[:N])
    told = {"about": (), "origin": "", "command": "", "labeled": True}
    from whence.explorer.session import Subject

    queries = trained.examples((x[N:], y[N:]))
    names = tuple(map(str, x.index[N:]))
    state = Session(Subject(trained=trained, queries=queries, names=names, **told)).state
    found = answers.predictions(state)
    off = np.abs(model.predict(x[N:]) - y[N:])
    assert [row["value"] for row in found["rows"]] == pytest.approx(off.tolist())
    assert not any(row["wrong"] for row in found["rows"])
    assert answers.answer(state, 0)["scale"]["predicted"] == pytest.approx(
        model.predict(x[N : N + 1])[0]
    )


def test_a_number_is_changed_from_how_it_is_shown() -> None:
    from sklearn.linear_model import Ridge

    x, y = X[["age", "fare"]].to_numpy(), 100.0 * X["age"].to_numpy() - 5000
    state = described(whence.from_sklearn(Ridge().fit(x[:N], y[:N]), x[:N], y[:N]), (x[N:], y[N:]))
    for position in (int(y[:N].argmin()), int(y[:N].argmax())):
        shown = answers.row(state, position)["label"]
        assert shown[0] == "−" or "," in shown
        after = Relabel(positions=(position,), labels=(shown,)).apply(state.model)
        assert float(after.train.targets[position]) == y[position]


def test_too_many_scores_are_refused() -> None:
    queries = fitted(X[:N], Y[:N]).train.subset(np.arange(0))
    with pytest.raises(InvalidInput, match="predictions of a model"):
        subject(queries=queries, names=())


def described(trained: whence.Trained, queries: object, **options: object) -> State:
    """The state of an exploration of any model."""
    from whence.explorer.session import Subject

    asked = trained.examples(queries)  # type: ignore[arg-type]
    names = tuple(map(str, asked.ids))
    told = {"about": (), "origin": "", "command": "", "labeled": True, **options}
    return Session(Subject(trained=trained, queries=asked, names=names, **told)).state  # type: ignore[arg-type]


def test_texts_are_shown_and_removed_for_real() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = [f"{mood} {thing}" for thing in ("film", "song", "book") for mood in ("fine", "dull")]
    texts, labels = texts * 3, ["praise", "complaint"] * 9
    make = make_pipeline(TfidfVectorizer(), LogisticRegression(tol=1e-10))
    trained = whence.from_sklearn(clone(make).fit(texts, labels), texts, labels)
    state = described(trained, (["fine play", "dull song"], ["praise", "complaint"]))
    shown = answers.answer(state, 0)
    assert shown["text"] == "fine play"
    assert {row["text"] for side in shown["sides"] for row in side["rows"]} <= set(texts)
    after = state.after(Remove(positions=(0, 4)), 0)
    kept = [i for i in range(18) if i not in (0, 4)]
    model = clone(make).fit([texts[i] for i in kept], [labels[i] for i in kept])
    margin = float(after.model.outputs(after.query(0))[0, 0])
    assert margin == pytest.approx(model.decision_function(["fine play"])[0], abs=1e-6)


def test_sparse_rows_name_what_they_hold() -> None:
    from scipy.sparse import csr_array
    from sklearn.linear_model import LogisticRegression

    x = csr_array(np.eye(40)[:, :8] + (np.arange(320).reshape(40, 8) % 7 == 0))
    y = np.arange(40) % 2
    model = LogisticRegression(tol=1e-10).fit(x[:30], y[:30])
    state = described(whence.from_sklearn(model, x[:30], y[:30]), (x[30:], y[30:]))
    row = answers.row(state, 3)
    columns = np.flatnonzero(x[[3]].toarray()[0])
    assert row["columns"] == []
    assert [part.split(":")[0] for part in row["text"].split(", ")] == [
        f"column {j}" for j in columns
    ]
    assert not row["editable"]
    assert answers.groups(state, 0, 1) == {"groups": []}


def test_images_are_pictures() -> None:
    x = torch.rand(30, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = (x.mean((1, 2, 3)) > 0.5).long()
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2))
    recipe = whence.Recipe(learning_rate=0.5, batch_size=20, epochs=20)
    run = whence.train(network, whence.CrossEntropy(), (x[:20], y[:20]), recipe)
    state = described(run, (x[20:], y[20:]), method=whence.TracIn())
    shown = answers.answer(state, 0)
    assert all(row["image"].startswith("data:image/png") for row in shown["sides"][0]["rows"])
    assert answers.sizes(state, 0, [1]) == {"texts": {}, "sizes": {}}
    after = state.after(Remove(positions=(2,)), 0)
    assert len(after.done) == 1
