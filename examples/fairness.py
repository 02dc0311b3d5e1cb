"""Which training rows widen the gap between two groups, and what removing them does."""

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence

X, y = load_diabetes(return_X_y=True, as_frame=True)
y = (y > y.median()).astype(int)  # does the disease progress faster than usual?
sex = X.pop("sex").map(lambda code: "women" if code > 0 else "men")  # the model never sees it
train, audit = X.index % 3 > 0, X.index % 3 == 0
model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8)).fit(X[train], y[train])
objective = whence.from_sklearn(model, X[train], y[train])

# The queries are a set: one number is made of all of them, and each row has one score.
gap = whence.measures.DemographicParity(sex[audit])
queries = X[audit], y[audit]
scores = whence.influence(objective, queries, measure=gap)
rates = model.predict_proba(X[audit])[:, 1]
for name in ("men", "women"):
    print(f"mean probability of {name}: {rates[sex[audit] == name].mean():.3f}")

print(f"{scores.measure}: removing these rows narrows it most")
for row, change in scores.bottom(5):
    print(f"  row {row}, {sex[row]}, y = {y[row]}: {change:+.4f}")

widest = scores.bottom(15).positions[0]
predicted = whence.group_effect(objective, widest, queries, measure=gap, order="refined")
refit = whence.group_effect(objective, widest, queries, measure=gap, order="refit")
print(f"without the first 15: {predicted[0]:+.4f} predicted, {refit[0]:+.4f} after a refit")

kept = np.setdiff1d(np.arange(train.sum()), widest)
fair = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8))
fair.fit(X[train].iloc[kept], y[train].iloc[kept])
before, after = (accuracy_score(y[audit], each.predict(X[audit])) for each in (model, fair))
print(f"accuracy {before:.3f} before, {after:.3f} after")
print(whence.removal_curve(objective, queries, measure=gap, fractions=[0.05, 0.1]))
