"""The frame of every comparison: seeds, requests, rows and metrics against a band of retrained models."""
