"""The networks of two-tower models in numpy: what DropoutNet and Heater are compared with."""

import numpy as np
from torch import nn


def perceptron(network: nn.Module, x: np.ndarray, train: bool) -> np.ndarray:
    """W2 tanh(BatchNorm(W1 x + b1)) + b2."""
    p = {name: value.detach().double().numpy() for name, value in network.state_dict().items()}
    h = x @ p["first.weight"].T + p["first.bias"]
    mean, variance = (h.mean(axis=0), h.var(axis=0)) if train else (p["norm.running_mean"], p["norm.running_var"])
    h = np.tanh((h - mean) / np.sqrt(variance + 1e-5) * p["norm.weight"] + p["norm.bias"])
    return h @ p["out.weight"].T + p["out.bias"]
