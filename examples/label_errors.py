"""Wrong labels: thirty are planted among six hundred, and found again."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import whence

X, truth = load_digits(return_X_y=True)
X, truth = X[:600] / 16, truth[:600]
wrong = np.random.default_rng(0).choice(600, 30, replace=False)
y = truth.copy()
y[wrong] = (y[wrong] + 1) % 10

model = LogisticRegression(tol=1e-8, max_iter=5000).fit(X, y)
errors = whence.find_label_errors(whence.from_sklearn(model, X, y))
frame = errors.to_frame()
print(f"{np.isin(frame.position[:30], wrong).sum()} of the first 30 suspects are wrong labels")
suggested = frame.suggested[:30].astype(int)
print(
    f"{(suggested.to_numpy() == truth[frame.position[:30]]).sum()} are suggested their true label"
)
errors.report("label_errors.html", rows=60, image_shape=(8, 8))
