"""Figures of Lorraine & Duvenaud (2018), "Stochastic Hyperparameter Optimization through
Hypernetworks", built again on the same data through the public face of HyperTraining.

    data.py           MNIST, or scikit-learn's digits, in three parts
    norm_penalty.py   best responses of linear models under a norm penalty, exact
    one_penalty.py    figures 2 and 4: one penalty, everywhere and around λ̂
    surfaces.py       figure 3: one weight, drawn
    many_decays.py    figure 5: one decay per weight
    contenders.py     the same by unrolled and by implicit differentiation
    ten_penalties.py  figure 6: ten penalties, predicted against true losses
    budgets.py        figure 7: ten and 7,850 decays against trials

The paper's text and its released code disagree. We take from the code what makes the surfaces
what the figures show: squared error as a Gaussian's negative log likelihood of deviation 0.1, and
penalties exp(λ) |w| of the norm, not of its square. Truth is the converged best response, exact,
where the code trains for 1,000 steps, which do not converge. From the text we take
p(λ), as far as the public face can say it: uniform over two of its standard deviations on either
side. Optimizers and step sizes are those of HyperTraining, which the paper does not have.
"""
