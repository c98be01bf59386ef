"""Zhang et al. 2017 (arXiv:1611.03530): networks fit labels and images that have nothing in them to learn.

Three parts, on scikit-learn's digits and, with --data, on CIFAR-10 images:

- fit: true labels, labels redrawn with probability 20 to 100 %, shuffled, random and Gaussian pixels, without any
  regularizer. How long until 99 % of the training set is fitted, and the test accuracy then.
- regularizers: weight decay, dropout, BatchNorm and augmentation, on true and on random labels.
- depth: perceptrons of 1 to 5 hidden layers, and ResNets of 8, 14 and 20 layers, with partly redrawn labels.

Everything is trained to a training loss of 0.01, or to the largest number of epochs of its recipe.
"""
