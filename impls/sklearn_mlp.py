"""A peer: scikit-learn's ``MLPRegressor`` and ``MLPClassifier``, one ``partial_fit`` a step."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from impls import optimizers
from impls.interface import AnyArray, Problem

ACTIVATIONS = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}


class SklearnMLP:
    """The same network from the same parameters; whole steps only.

    scikit-learn's squared loss is 1/(2n) Σ (y - t)², ours 1/(n d) Σ (y - t)²: its learning rate is ours times 2/d.
    Its momentum has the learning rate within the velocity, which for a constant one is the same; its Adam adds ε to the
    root of a v̂ that is not corrected, which is not.
    """

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        network = problem.network
        self.classifies = network.loss == "cross_entropy"
        rate = problem.learning_rate * (1 if self.classifies else 2 / network.layers[-1])
        settings: dict[str, Any] = {
            "hidden_layer_sizes": network.layers[1:-1],
            "activation": ACTIVATIONS[network.activation],
            "solver": "sgd",
            "alpha": 0.0,
            "batch_size": problem.n,
            "learning_rate_init": rate,
            "momentum": getattr(optimizers.find(problem.optimizer), "decay", 0.0),
            "nesterovs_momentum": problem.optimizer == "nesterov",
            "shuffle": False,
            "random_state": 0,
        }
        self.x = problem.inputs.astype(dtype)
        if self.classifies:
            self.model = MLPClassifier(**settings)
            self.t = problem.targets.argmax(axis=1)
            self.options = {"classes": np.arange(network.layers[-1])}
        else:
            self.model = MLPRegressor(**settings)
            self.t = problem.targets.astype(dtype)
            self.options = {}
            if network.layers[-1] == 1:
                self.t = self.t.ravel()
        self.scale = 1.0 if self.classifies else 2.0 / network.layers[-1]
        self.step()  # the first call builds the model's arrays; then they take the problem's values
        del self.model._optimizer  # its velocities begin anew
        for target, source in zip(self._arrays(), problem.parameters, strict=True):
            target[...] = source

    def step(self) -> None:
        """One pass of ``partial_fit`` over the batch."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.model.partial_fit(self.x, self.t, **self.options)

    def epoch(self, order: AnyArray, batch: int) -> None:
        """One pass of ``partial_fit`` over the shuffled examples, batch by batch."""
        self.model.batch_size = batch
        try:
            self.model.partial_fit(self.x[order], self.t[order], **self.options)
        finally:
            self.model.batch_size = len(self.x)

    def synchronize(self) -> None:
        """Nothing is asynchronous here."""

    def parameters(self) -> list[AnyArray]:
        """NumPy copies (W1, b1, …) with W of shape (fan_in, fan_out)."""
        return [array.copy() for array in self._arrays()]

    def _arrays(self) -> list[AnyArray]:
        return [a for pair in zip(self.model.coefs_, self.model.intercepts_, strict=True) for a in pair]

    def loss_value(self) -> float:
        """The loss last computed; scikit-learn's mse is half the mean over outputs."""
        return float(self.model.loss_) * (1.0 if self.classifies else 2.0)
