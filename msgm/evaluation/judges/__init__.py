"""Kinds of judges, one a file; each registers itself."""

from msgm.evaluation.judges import cells, clip, copies, measured, own, torchvision  # noqa: F401 - they register themselves
