"""A neural network: influence at its checkpoint, and through its training."""

import numpy as np
import torch
from sklearn.datasets import load_digits

import whence

pixels, labels = load_digits(return_X_y=True)
few = labels < 3
x = torch.tensor(pixels[few] / 16, dtype=torch.float32)
y = torch.tensor(labels[few])
train, queries = (x[:200], y[:200]), (x[200:205], y[200:205])

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
recipe = whence.Recipe(
    learning_rate=0.8, momentum=0.5, batch_size=200, epochs=800, weight_decay=1e-2
)
run = whence.train(model, whence.CrossEntropy(), train, recipe)

objective = whence.from_torch(run.model, whence.CrossEntropy(), train, l2=1e-2)
checkpoint = whence.influence(objective, queries, solver=whence.EKFAC())
through = whence.metagradient(run, queries)
for q in range(5):
    agreement = np.corrcoef(checkpoint.values[q], through.values[q])[0, 1]
    best = int(through.values[q].argmax())
    print(
        f"a {queries[1][q]}: helped most by a {train[1][best]}, both agree with R = {agreement:.1f}"
    )
