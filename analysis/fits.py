"""``fits.json``: what scripts may rely on, one object for each implementation, device, dtype, phase and optimizer."""

from __future__ import annotations

import math
from typing import Any

from analysis import figures
from analysis.claims import BAND
from analysis.costs import Cost, costs
from analysis.exponents import Exponent
from analysis.figures import Material
from analysis.launch import Launch
from analysis.load import Run
from analysis.statistics import Interval
from analysis.verdicts import LawVerdict, Verdict
from backprop_files import SCHEMA_VERSION


def document(run: Run, material: Material) -> dict[str, Any]:
    """The contract scripts may rely on; missing numbers are null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "run": _plain(run.settings),
        "fits": [_fit_object(material, verdict) for verdict in (*material.verdicts, *material.others)],
    }


def _fit_object(material: Material, verdict: Verdict) -> dict[str, Any]:
    winner = verdict.choice.winner
    regimes = material.regimes.get(figures.name_of(verdict)) if verdict.phase == "step" else None
    return {
        "impl": verdict.impl,
        "device": verdict.device,
        "dtype": verdict.dtype,
        "phase": verdict.phase,
        "optimizer": verdict.optimizer,
        "claim": {
            "statement": verdict.claim.statement,
            "law": verdict.claim.law,
            "exponents": verdict.claim.exponents,
            "band": BAND,
        },
        "verdict": verdict.word,
        "reason": verdict.reason,
        "exponents": {name: exponent_object(exponent) for name, exponent in verdict.exponents.items()},
        "winning_law": winner.law.name if winner else None,
        "winning_reason": verdict.choice.reason,
        "laws": [_law_object(verdict, judged) for judged in verdict.laws],
        "costs": [
            {
                "unit": cost.unit,
                "bytes" if verdict.phase == "memory" else "seconds": interval_object(cost.seconds),
                "share_of_ceiling": _number(cost.share),
                "ceiling": cost.ceiling or None,
            }
            for cost in costs_of(material, verdict)
        ],
        "regimes": None
        if regimes is None
        else {
            "axis": regimes.axis,
            "unit": "n·m",
            "range": [regimes.low, regimes.high],
            "overhead_until": regimes.overhead_until,
            "transition_until": regimes.transition_until,
            "steps": [{"at": at, "ratio": ratio} for at, ratio in regimes.steps],
            "crossover": interval_object(regimes.crossover),
            "reason": regimes.reason,
        },
    } | ({} if verdict.launch is None else {"launch": _launch_object(verdict.launch)})


def _launch_object(found: Launch) -> dict[str, Any]:
    return {
        "named": found.named,
        "unit": found.unit,
        "range": [found.low, found.high],
        "seconds": interval_object(found.seconds),
        "growth": {name: interval_object(interval) for name, interval in found.growth.items()},
        "crossover": interval_object(found.crossover),
        "crossovers": {axis: interval_object(interval) for axis, interval in found.crossovers.items()},
        "reasons": dict(found.reasons),
        "arithmetic_from": _number(found.arithmetic_from),
    }


def exponent_object(exponent: Exponent) -> dict[str, Any]:
    """An exponent with its interval, range and steps."""
    keys = ("value", "ci_low", "ci_high", "range_low", "range_high", "points", "reason")
    return _plain({key: getattr(exponent, key) for key in keys}) | {
        "steps": [{"at": at, "ratio": ratio} for at, ratio in exponent.steps]
    }


def _law_object(verdict: Verdict, judged: LawVerdict) -> dict[str, Any]:
    fit = judged.fit
    unit = "bytes" if verdict.phase == "memory" else "s"
    return {
        "name": fit.law.name,
        "statement": fit.law.statement,
        "terms": [term.text for term in fit.law.terms],
        "units": [unit if term.text == "1" else f"{unit} per {term.text}" for term in fit.law.terms],
        "coefficients": list(fit.coefficients),
        "verdict": judged.word,
        "reason": judged.reason,
        "predicted_exponents": {name: _number(value) for name, value in judged.predicted.items()},
        "fitted_cells": fit.fitted_cells,
        "fitted_median": _number(fit.fitted_median),
        "crossvalidated_median": _number(fit.crossvalidated_median),
        "heldout_cells": fit.heldout_cells,
        "heldout_median": _number(fit.heldout_median),
        "heldout_p90": _number(fit.heldout_p90),
    }


def interval_object(found: Interval) -> dict[str, Any]:
    """An estimate and its ends; missing numbers are null."""
    return {"value": _number(found.value), "ci_low": _number(found.low), "ci_high": _number(found.high)}


def costs_of(material: Material, verdict: Verdict) -> list[Cost]:
    """What things cost by the winning law of a verdict's group."""
    return costs(verdict.choice, verdict.phase, material.rows_of(verdict))


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(mapping: dict[str, Any]) -> dict[str, Any]:
    return {key: _number(value) for key, value in mapping.items()}
