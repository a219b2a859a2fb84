"""Report cards of unlearned models, common to generative models, classifiers and recommenders.

``claims`` decides a claim by its conditions and controls, ``words`` states what no test can show, ``views`` turns a
card, a JSON tree, into Markdown and HTML. Nothing here knows what kind of model a card is about.
"""
