"""Best responses: hyperparameters λ → the weights of the user's own torch model.

Two of them have the same face. ``weights`` puts a vector of all weights into the model, which one
of ``hypernetworks`` gives: any model, any algorithm. ``structured`` exchanges the model's layers
for their ``siblings`` (in ``layers``, ``recurrent``, ``attention`` and ``dropout``), whose units
have gates: each example of a batch has its own λ, at the cost of two to three plain train steps;
``delta`` learns the same by two losses. ``models``, ``losses`` and ``batch`` are what the user
passes, and check it.
Nothing here knows Optuna or the bilevel loop.
"""
