"""Figures and tables of MacKay et al. (2019), "Self-Tuning Networks: Bilevel Optimization of
Hyperparameters using Structured Best-Response Functions", in small, through HyperTraining.

    theorems.py    the gating theorem and the Jacobian theorem as numbers
    dropout.py     the problem of the others: dropout rates of a network on MNIST
    schedules.py   schedules from five starts
    controls.py    table 1: the schedule, its last value, noise around it, the best constant
    learning.py    one loss for the gates, or two, as in Delta-STN
    budgets.py     table 2: against grid, random search, TPE and GP in the same seconds

The paper has an LSTM on Penn Treebank and a convolutional network on CIFAR-10, trained for hours.
Orders and shapes can be compared with it, numbers cannot.
"""
