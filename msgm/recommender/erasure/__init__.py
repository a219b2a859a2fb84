"""Comparisons of methods that erase user attributes from recommenders, as a domain of ``msgm.study``."""
