"""Comparisons of erasures of users' attributes from recommenders: the client of the frame for them."""
