"""How few training examples carry a prediction? Remove them, retrain, and it is another one."""

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import scale

import whence

X, y = load_breast_cancer(return_X_y=True)
X = scale(X)
model = LogisticRegression(tol=1e-8).fit(X[100:], y[100:])
objective = whence.from_sklearn(model, X[100:], y[100:])
for patient in (13, 5, 0):
    print(f"patient {patient}: {whence.flip_set(objective, (X[patient], y[patient]))}")
