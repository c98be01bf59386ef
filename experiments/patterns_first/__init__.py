"""Arpit et al. 2017 (arXiv:1706.05394): networks learn simple patterns first, and memorize later.

Perceptrons on scikit-learn's digits and, with --data, on CIFAR-10 images, with right labels, with labels redrawn with
probability 20 to 100 %, and on Gaussian images. Along training: the accuracy on right and on wrong labels, the test accuracy,
the critical sample ratio, the loss sensitivity of every sample, and the Hessian's largest eigenvalue and trace, layer by layer.
On digits also full-batch gradient descent, whose largest stable step is 2 / lambda_max.
"""
