"""Unlearning for classifiers: methods with one signature, metrics against a band of retrained models, and an audit."""
