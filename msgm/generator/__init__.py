"""Commands on generators: one base model, every objective run on it, all measured alike."""
