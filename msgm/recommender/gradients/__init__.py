"""What influence and gradient methods share: objectives as functions of tables, blocks of rows, solvers, descent.

Imported by a method when it starts to forget, because it imports torch.
"""
