"""Which measure tells networks that memorized from networks that generalized, and which ranks the generalization gap?

Perceptrons on scikit-learn's digits, with true labels, 20 to 80 % redrawn ones and random ones, at two batch sizes and two
learning rates; with --data also perceptrons on CIFAR-10 images. All are trained to one training loss. Every network is measured
twice: as trained, and after a move along its symmetries that keeps its function, a layer-wise factor of 10 and then a factor
between 1/10 and 10 for every neuron.

An adversary hands in moved copies: for each measure either of all networks that generalized, or of all that memorized,
whichever hides the difference better. What still separates them, and still ranks the gap, survives. AUC, Kendall's tau,
granulated Psi, partial correlation at fixed learning rate, batch size and training loss, and the worst-environment sign
error are those of `landscape compare`.
"""
