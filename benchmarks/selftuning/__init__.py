"""Figures and tables of MacKay et al. (2019), "Self-Tuning Networks: Bilevel Optimization of
Hyperparameters using Structured Best-Response Functions", in small, through HyperTraining.

    theorems.py    the gating theorem and the Jacobian theorem as numbers
    problem.py     what a problem is: a search space, a network, losses, data, and its runs
    dropout.py     the problem that takes seconds: dropout rates of a network on MNIST
    cifar.py       fifteen hyperparameters of a convolutional network on CIFAR-10
    text.py        seven hyperparameters of an LSTM on the Brown corpus
    schedules.py   schedules from five starts
    controls.py    table 1: the schedule, its last value, noise around it, the best constant
    learning.py    one loss for the gates, or two, as in Delta-STN
    sweeps.py      scales, entropies and step ratios
    budgets.py     table 2: against grid, random search, TPE and GP in the same seconds
    experiments.py both tables and the schedules, on CIFAR-10 and on text

The paper has an LSTM on Penn Treebank and a convolutional network on CIFAR-10, trained for hours.
Orders and shapes can be compared with it, numbers cannot.
"""
