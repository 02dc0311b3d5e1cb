"""Images through a frozen network: which pixels of which training images act on a prediction?"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import whence

pixels, labels = load_digits(n_class=4, return_X_y=True)
images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
torch.manual_seed(0)
network = torch.nn.Sequential(  # yours is trained; a random one already separates digits
    torch.nn.Conv2d(1, 12, 3), torch.nn.Softplus(), torch.nn.AvgPool2d(2), torch.nn.Flatten()
)
network.requires_grad_(False).eval()
train, test = slice(0, 300), slice(300, None)
top = LogisticRegression(tol=1e-8, max_iter=5000).fit(network(images[train]), labels[train])
right = top.score(network(images[test]), labels[test])
print(f"{right:.0%} of the other digits are read correctly")

objective = whence.from_frozen(network, top, images[train], labels[train])
wrong = 300 + np.flatnonzero(top.predict(network(images[test])) != labels[test])[0]
query = images[wrong : wrong + 1], labels[wrong : wrong + 1]
explanation = whence.explain(objective, query, k=3)
said = top.predict(network(query[0]))[0]
behind = [int(labels[effect.position]) for effect in explanation.harmful]
print(f"digit {wrong} is a {query[1][0]}, read as a {said}; harmed most by digits {behind}")

attribution = whence.perturbation(objective, [explanation.harmful[0].position], query)[0, 0]
row, column = np.unravel_index(abs(attribution).argmax(), attribution.shape)
print(f"in the first of them pixel ({row}, {column}) moves the answer most")
explanation.report("images.html")
