"""Commands on generators: one base model, every objective run on it, all measured with the same metrics."""
