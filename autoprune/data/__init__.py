"""The data of a search: three disjoint sets of batches, and readers that make them.

Here: `Data`, its checks, the embedded digits, readers of CIFAR-10, image folders, arrays and texts. Not here: anything
that runs a model. Imports `measure.batch`, pretrained and errors; run, config and zoo may import this room.
scikit-learn, Pillow and transformers are imported by the readers that need them, when they are called.
"""

from autoprune.data.cifar import cifar10
from autoprune.data.embedded import digits, digits_train
from autoprune.data.readers import arrays, image_folder
from autoprune.data.sets import Data
from autoprune.data.text import sentences, text

__all__ = ["Data", "arrays", "cifar10", "digits", "digits_train", "image_folder", "sentences", "text"]
