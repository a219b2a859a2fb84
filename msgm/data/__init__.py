"""Data sets: images as integer levels, tables and 2-D Gaussians as vectors; no models."""

from msgm.data.base import DATASETS, Dataset, DataSettings, load_dataset
from msgm.data.captioned_digits import CaptionedDigits
from msgm.data.digits import Digits
from msgm.data.feed import Batch, Feed
from msgm.data.folder import Folder
from msgm.data.gaussians import Gaussians
from msgm.data.pixels import dequantise, quantise
from msgm.data.table import Table
from msgm.data.torchvision_sets import CIFAR10, CIFAR100, MNIST, STL10, SVHN, CelebA, FashionMNIST

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "DATASETS",
    "MNIST",
    "STL10",
    "SVHN",
    "Batch",
    "CaptionedDigits",
    "CelebA",
    "DataSettings",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "Feed",
    "Folder",
    "Gaussians",
    "Table",
    "dequantise",
    "load_dataset",
    "quantise",
]
