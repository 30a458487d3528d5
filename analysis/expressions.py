"""Arithmetic over the sizes of a cell, read from text: parsed into a tree and walked, never evaluated as code.

``n·m·p``, ``n*m*log2(width)``, ``m*beyond(4*m, L2)``: numbers, the names in ``VARIABLES`` or those given, ``+ - * / **``
(also ``·``, ``×`` and ``^``), parentheses and the functions in ``FUNCTIONS``.  Anything else is refused with the place in
the text.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.statistics import Floats
from backprop_files import UserError

#: What an expression may name: columns of the cell table, and constants of the machine.
VARIABLES = {
    "n": "training examples in one step, or in one epoch",
    "steps": "steps of an epoch: n / batch, rounded up",
    "batch": "examples in each of them",
    "m": "weights and biases",
    "p": "operations per activation and its derivative",
    "u": "units that have an activation",
    "width": "units of a hidden layer",
    "depth": "number of weight layers",
    "hidden": "hidden layers, depth - 1",
    "inputs": "units of the input",
    "outputs": "units of the output",
    "units": "units of all layers, input and output too",
    "products": "multiply-adds for one example, exactly counted: the first layer needs no gradient of its input",
    "itemsize": "bytes of a number",
    "L1": "bytes of the first-level data cache",
    "L2": "bytes of the second-level cache",
    "L3": "bytes of the last-level cache",
}
LONGEST = 200
#: A power beyond this is a slip of the pen, and would overflow.
LARGEST_POWER = 8.0


def _beyond(size: Floats, limit: Floats) -> Floats:
    """Share of a working set that lies beyond a cache: 0 while it fits, then 1 - limit / size."""
    return np.clip(1 - limit / np.maximum(size, 1e-300), 0, None)


def _reaches(size: Floats, least: Floats) -> Floats:
    """1 from ``least`` on, 0 below: where a library takes another kernel."""
    return np.asarray(size >= least, float)


def _loose(size: Floats, lanes: Floats) -> Floats:
    """Of a loop of fixed length the turns that compilers take one by one, not in vectors of so many lanes.

    LLVM unrolls a loop shorter than three quarters of a vector; of fewer than two vectors it takes every turn alone, unless
    they fill one; up to four vectors those that are left of whole ones.  Longer loops have another form, without them.
    """
    rest = np.mod(size, lanes)
    short = np.where(rest > 0, size, 0) * (size >= 0.75 * lanes)
    return np.asarray(np.select([size < 2 * lanes, size <= 4 * lanes], [short, rest], 0), float)


FUNCTIONS: dict[str, tuple[int, Callable[..., Floats]]] = {
    "log": (1, np.log),
    "log2": (1, np.log2),
    "sqrt": (1, np.sqrt),
    "ceil": (1, np.ceil),
    "min": (2, np.minimum),
    "max": (2, np.maximum),
    "mod": (2, np.mod),
    "beyond": (2, _beyond),
    "reaches": (2, _reaches),
    "loose": (2, _loose),
}
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}


@dataclass(frozen=True)
class Expression:
    """A parsed expression."""

    text: str
    _tree: ast.expr

    def __call__(self, columns: Mapping[str, Any]) -> Floats:
        """Values for ``columns`` (each of shape (rows,)), shape (rows,).  NaN where a constant is not known."""
        with np.errstate(all="ignore"):
            return np.asarray(_value(self._tree, columns), float) * np.ones(len(np.atleast_1d(columns["n"])))

    @property
    def tree(self) -> Any:
        """The same as plain lists for JSON: a number, a name, or ``[operator or function, argument, …]``."""
        return _plain(self._tree)

    @property
    def names(self) -> frozenset[str]:
        """The variables it names."""
        return frozenset(node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)) - FUNCTIONS.keys()


def parse(text: str, where: str, names: Collection[str] = VARIABLES) -> Expression:
    """Read an expression over ``names``.  Raises UserError that says what is wrong in it, and ``where`` it stands."""
    plain = text.replace("·", "*").replace("×", "*").replace("^", "**").strip()
    if not plain or len(plain) > LONGEST:
        raise UserError(f"{where}: an expression has 1 to {LONGEST} characters, not {len(plain)}")
    try:
        tree = ast.parse(plain, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{where}: '{text}' is no arithmetic expression") from error
    reason = _wrong(tree, names)
    if reason:
        raise UserError(f"{where}: '{text}': {reason}")
    return Expression(text, tree)


def _wrong(node: ast.expr, names: Collection[str]) -> str | None:
    """What is not allowed in a tree, or None."""
    match node:
        case ast.Constant(value=value):
            good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100
            return None if good else f"{value!r} is no number"
        case ast.Name(id=name):
            return None if name in names else f"unknown name '{name}'; known: {', '.join(names)}"
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _wrong(operand, names)
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=power)):
            fine = isinstance(power, int | float) and abs(power) <= LARGEST_POWER
            return _wrong(left, names) if fine else f"a power is a number of at most {LARGEST_POWER:g}"
        case ast.BinOp(op=ast.Pow()):
            return "a power is a number, not an expression"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _wrong(left, names) or _wrong(right, names)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            count = FUNCTIONS[name][0]
            if len(arguments) != count:
                return f"{name} takes {count} argument{'s' if count > 1 else ''}, not {len(arguments)}"
            return next(filter(None, (_wrong(argument, names) for argument in arguments)), None)
        case ast.Call(func=ast.Name(id=name)):
            return f"unknown function '{name}'; known: {', '.join(FUNCTIONS)}"
    return f"'{ast.unparse(node)}' is not arithmetic"


def _value(node: ast.expr, columns: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return float(value)  # type: ignore[arg-type]  # numbers only, by _wrong
        case ast.Name(id=name):
            return np.asarray(columns[name], float)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, columns)
        case ast.UnaryOp(operand=operand):
            return _value(operand, columns)
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, columns), _value(right, columns))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return FUNCTIONS[name][1](*(_value(argument, columns) for argument in arguments))
    raise AssertionError(ast.dump(node))  # _wrong lets nothing else through


_SIGNS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}


def _plain(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return name
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return ["-", 0, _plain(operand)]
        case ast.UnaryOp(operand=operand):
            return _plain(operand)
        case ast.BinOp(left=left, op=op, right=right):
            return [_SIGNS[type(op)], _plain(left), _plain(right)]
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return [name, *map(_plain, arguments)]
    raise AssertionError(ast.dump(node))  # _wrong lets nothing else through
