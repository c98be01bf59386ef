"""An alarm for label memorization (after Page 1954 and Arpit et al. 2017, arXiv:1706.05394): how often it errs.

Perceptrons on scikit-learn's digits, each with a width, optimizer, learning rate, batch size and checking interval of its own,
are watched through training. A threshold of the alarm comes from clean runs; its false alarms are counted on other clean
runs, its detections and their delay on runs with labels redrawn with probability 20, 40 and 80 %; then on settings that are
not those of the calibration: BatchNorm, depth, few samples, regularization, gradient descent, noise as inputs.
"""
