"""Report cards: what generative models, classifiers and recommenders have in common in saying what was shown.

``claims`` decides a claim by its conditions and controls, ``words`` withholds what no test can show, ``views`` turns a
card, a JSON tree, into Markdown and HTML. Nothing here knows what kind of model a card is about.
"""
