"""Shwartz-Ziv and Tishby 2017 (arXiv:1703.00810), Saxe et al. 2018: do hidden layers first fit and then compress?

Networks on the twelve-bit task and on digits, with tanh and with rectifiers, on true and on random labels. I(T; X) and
I(T; Y) of every hidden layer at epochs spaced evenly in the logarithm, by five estimates: 30 bins over the layer's range at
that epoch; 30 bins over a fixed range; the kernel upper bound with two variances of noise; nearest neighbours.

The fall of a layer is the largest I(T; X) of the training, its start included, minus that at the end. A layer compresses if
the mean fall over the seeds exceeds 0.2 bits: its 95 % bootstrap interval lies above, and q <= 0.05 over all layers, networks
and estimators. A layer that is within 5 % of log2 N at every epoch of every seed cannot be judged. A network compresses if more
than half of the judged hidden layers do. These rules were
written before the runs, but after a trial on the twelve-bit task. That a network does not compress is said only if the interval
of more than half of the judged layers ends below 0.2 bits, else that it cannot be told: added after the first look at the
results, because many falls have wide intervals.
"""
