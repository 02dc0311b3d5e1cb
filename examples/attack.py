"""An audit: how small a change of five training images turns what a model says of one digit?"""

import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import whence

pixels, y = load_digits(return_X_y=True)
keep = (y == 3) | (y == 8)
images = torch.tensor(pixels[keep]).reshape(-1, 1, 8, 8) / 8 - 1
labels = (y[keep] == 8).astype(int)

torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Conv2d(1, 16, 3), torch.nn.Softplus(), torch.nn.Flatten()
).double()
network.requires_grad_(False)
train, test = slice(0, 200), slice(200, None)
top = LogisticRegression(C=100, tol=1e-10, max_iter=5000)
top.fit(network(images[train]), labels[train])
objective = whence.from_frozen(network, top, images[train], labels[train])

sure = abs(top.decision_function(network(images[test])))
right = top.predict(network(images[test])) == labels[test]
at = 200 + int((sure + 1e9 * ~right).argmin())
query = images[at : at + 1], labels[at : at + 1]
attack = whence.attacks.attack(objective, query, n_images=5, budget=0.25, step_size=0.05)
print(
    f"turned by changes of at most {attack.largest_change:.2f} on pixels from -1 to 1:",
    bool(attack.flipped.all()),
)
print("and by a model trained from nothing on the changed images:", bool(attack.verify().all()))
attack.report("attack.html")
