"""Derivatives of the loss: gradients, and products with the Hessian, the Gauss-Newton matrix and the Fisher matrix."""
