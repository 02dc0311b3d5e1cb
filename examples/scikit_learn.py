"""A fitted pipeline: who is behind one prediction, is that true, and what of a whole group?"""

from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence

X, y = load_wine(return_X_y=True, as_frame=True)
train, test = X.index % 2 == 0, X.index % 2 == 1
model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8)).fit(X[train], y[train])
objective = whence.from_sklearn(model, X[train], y[train])

losses = -model.predict_log_proba(X[test])[range(test.sum()), y[test]]
worst = X[test].index[losses.argmax()]
query = X.loc[[worst]], y.loc[[worst]]
explanation = whence.explain(objective, query, k=3)
print(f"wine {worst}, the least certain of the other half")
print(explanation)
print(explanation.verify(20))

sour = X[train].malic_acid.to_numpy() > 3.2
predicted = whence.group_effect(objective, sour.nonzero()[0], query)
refitted = whence.group_effect(objective, sour.nonzero()[0], query, order="refit")
print(f"without the {sour.sum()} sourest wines the loss would change by {predicted[0]:+.2f};")
print(f"retrained without them it changes by {refitted[0]:+.2f}")

explanation.report("scikit_learn.html")
