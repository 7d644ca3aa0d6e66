"""Small reference networks, trained if they come with their data.

Here: the ResNets of CIFAR-10, which load weights from a file, and one for the embedded digits, which is trained in
seconds and cached. Not here: anything about pruning. Imports `data`, prune's `modes` and errors; only jobs use this
room.
"""

from autoprune.zoo.cifar import resnet20, resnet32, resnet44, resnet56, resnet110
from autoprune.zoo.resnet import ResNet
from autoprune.zoo.trained import digits_resnet

__all__ = ["ResNet", "digits_resnet", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"]
