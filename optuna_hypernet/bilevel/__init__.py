"""The bilevel loop: train steps move φ, valid steps move λ.

``loop`` holds the two steps and the state between them, ``plans`` the algorithms as orders of
steps, ``densities`` where they draw λ, ``runs`` the evaluations, early stop and checkpoints on the
way, ``reports`` what an Optuna trial is told of them, ``plots`` its schedule for optuna-dashboard,
``optimizers`` what moves φ and λ̂, ``batches`` the user's data, ``problem`` all of what stays
fixed, and ``tuned`` the result. The best response is a ``loop.Response``, whatever it is made of.
"""
