"""Real data sets as plain arrays.

Each function reads its files through `at_hand` and `read`: from a local mirror, or from the
place where the data are published. The order of rows never depends on the machine, and every
shuffle takes a seed.

`quick=True` asks for the small stand-in that a two-minute run uses: a part of the same data if
the files are at hand, otherwise a data set that comes with scikit-learn. It never downloads, and
`name` says which one it is.
"""

from experiments.datasets.files import at_hand as at_hand
from experiments.datasets.files import read as read
from experiments.datasets.images import cifar10 as cifar10
from experiments.datasets.images import digits as digits
from experiments.datasets.images import dogfish as dogfish
from experiments.datasets.images import mnist as mnist
from experiments.datasets.images import mnist_pair as mnist_pair
from experiments.datasets.split import Split as Split
from experiments.datasets.tables import Hospital as Hospital
from experiments.datasets.tables import breast_cancer as breast_cancer
from experiments.datasets.tables import diabetes130 as diabetes130
from experiments.datasets.tables import drop_children as drop_children
from experiments.datasets.texts import BagOfWords as BagOfWords
from experiments.datasets.texts import Sentences as Sentences
from experiments.datasets.texts import agnews as agnews
from experiments.datasets.texts import enron_bag_of_words as enron_bag_of_words
from experiments.datasets.texts import sst2 as sst2
from experiments.datasets.texts import tinyshakespeare as tinyshakespeare
from experiments.datasets.texts import wikitext2 as wikitext2
