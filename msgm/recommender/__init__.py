"""Unlearning for recommenders: models that forget exactly where mathematics allows it, and methods that approximate."""
