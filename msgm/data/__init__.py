"""Data sets: images as integer levels, 2-D Gaussians as vectors; no models."""

from msgm.data.base import DATASETS, Dataset, DataSettings, load_dataset
from msgm.data.digits import Digits
from msgm.data.feed import Feed
from msgm.data.folder import Folder
from msgm.data.gaussians import Gaussians
from msgm.data.pixels import dequantise, quantise
from msgm.data.torchvision_sets import CIFAR10, MNIST, STL10, CelebA, FashionMNIST

__all__ = [
    "CIFAR10",
    "DATASETS",
    "MNIST",
    "STL10",
    "CelebA",
    "DataSettings",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "Feed",
    "Folder",
    "Gaussians",
    "dequantise",
    "load_dataset",
    "quantise",
]
