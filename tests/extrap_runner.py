"""Extra-P models the data it is handed: JSON in from stdin, JSON out to stdout.

Runs in an environment of its own (``make other-tools``), since Extra-P 4.2.5 needs NumPy before 2; imports nothing of ours.
In comes ``{"parameters": ["n", …], "jobs": [{"cells": [[n, …, time], …], "beyond": [[n, …], …]}, …]}``, out goes, for each
job, ``{"model": text, "constant": c, "terms": [{"n": [power, power of log2], …}, …], "predicted": [time, …]}``.
"""

import contextlib
import json
import sys
import warnings
from typing import Any

from extrap.entities.callpath import Callpath
from extrap.entities.coordinate import Coordinate
from extrap.entities.experiment import Experiment
from extrap.entities.functions import Function
from extrap.entities.measurement import Measurement
from extrap.entities.metric import Metric
from extrap.entities.parameter import Parameter
from extrap.modelers.model_generator import ModelGenerator


def model(parameters: list[str], job: dict[str, Any]) -> dict[str, Any]:
    """Extra-P's default model of one set of cells, and what it predicts."""
    experiment, callpath, metric = Experiment(), Callpath("step"), Metric("time")
    for name in parameters:
        experiment.add_parameter(Parameter(name))
    experiment.add_callpath(callpath)
    experiment.add_metric(metric)
    values: dict[tuple[float, ...], list[float]] = {}
    for *point, seconds in job["cells"]:
        values.setdefault(tuple(point), []).append(seconds)  # the same sizes twice count as repetitions
    for at, times in values.items():
        experiment.add_coordinate(Coordinate(at))
        experiment.add_measurement(Measurement(Coordinate(at), callpath, metric, times))
    generator = ModelGenerator(experiment)
    generator.model_all()
    function = generator.models[(callpath, metric)].hypothesis.function
    return {
        "model": function.to_string(*experiment.parameters),
        "constant": float(function.constant_coefficient),
        "terms": terms(function, parameters),
        "predicted": [float(function.evaluate(point)) for point in job["beyond"]],
    }


def terms(function: Function, parameters: list[str]) -> list[dict[str, list[float]]]:
    """Powers of each parameter, and of its log2, in every term."""
    found = []
    for term in function.compound_terms:
        powers: dict[str, list[float]] = {}
        for i, compound in term.parameter_term_pairs:
            own = powers.setdefault(parameters[i], [0.0, 0.0])
            for simple in compound.simple_terms:
                own[simple.term_type == "logarithm"] += float(simple.exponent)
        found.append(powers)
    return found


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the answer alone
        answers = [model(request["parameters"], job) for job in request["jobs"]]
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
