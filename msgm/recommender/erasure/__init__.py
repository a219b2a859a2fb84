"""Comparisons of the ways to take users' attributes out of recommenders: the client of the frame for them."""
