"""Networks made elsewhere that judges and metrics look through: CLIP, torchvision's classifiers, Inception."""
