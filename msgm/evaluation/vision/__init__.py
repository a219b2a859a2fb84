"""Pretrained networks of judges and metrics: CLIP, torchvision's classifiers, Inception."""
