"""ImageNet networks with published weights, frozen, as plain torch modules.

All take RGB in [0, 1] and do their own scaling. `embed(x)` gives the pooled features [b, d] and,
where there is a classifier, calling the network gives the logits [b, 1000].
"""

from experiments.networks.inception import InceptionV3Trunk as InceptionV3Trunk
from experiments.networks.inception import inception_v3_trunk as inception_v3_trunk
from experiments.networks.mobilenet import MobileNetV2 as MobileNetV2
from experiments.networks.mobilenet import mobilenet_v2 as mobilenet_v2
from experiments.networks.squeezenet import SqueezeNet as SqueezeNet
from experiments.networks.squeezenet import squeezenet1_1 as squeezenet1_1
from experiments.networks.weights import imagenet_classes as imagenet_classes
from experiments.networks.weights import pixels as pixels
