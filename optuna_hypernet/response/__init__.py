"""Best responses: hyperparameters λ → the weights of the user's own torch model.

``hypernetworks`` holds the maps from λ to a vector of weights, ``weights`` puts such a vector into
the user's model and takes its losses. Nothing here knows Optuna or the bilevel loop.
"""
