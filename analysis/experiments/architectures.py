"""Beyond the fully connected network: where n·m·p stops, which law holds instead, and whether one line holds them all.

n·m·p (p is the same at all sizes of a workload, so that n·m is left) is judged by growth along each axis: the exponent of
time less that of n·m in the same variable is 0 ± ``BAND``; and by sizes that no fit saw, which may refute it.  A workload's
own law is judged in the same way by its own growth, and by sizes that no fit saw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from analysis import words
from analysis.claims import BAND, HELDOUT_BAND
from analysis.experiments import Claimed, Drawn, Section, Table, Told, Word, workload_figures
from analysis.experiments.found import Found
from analysis.experiments.workload_series import (
    ARTICLE,
    OWN,
    Along,
    Beside,
    Quadratic,
    ReuseLine,
    Series,
    beside,
    quadratic,
    reuse_line,
    series,
    told,
)
from analysis.exponents import OVERHEAD_SHARE
from analysis.laws import LEAST_HELDOUT, LawFit
from analysis.statistics import Interval
from analysis.verdicts import overall, predicts

#: What times are set beside, where it was measured: what most people train with.
OTHER = "torch"
#: Workloads lie on one line if nine in ten of their cells do so within this factor; they do not if half of them lie outside.
ON_LINE = 2.0
#: Attention's quadratic part is looked for in sequences of this length; it is not there if it may at most be this share.
LONG, LEAST_QUADRATIC = 512, 0.05


def section(found: Found) -> Section:
    """Laws, verdicts, tables and figures."""
    every = series(found)
    if not every:
        nothing = "Nothing was measured: no implementation here trains these workloads, or its tasks failed."
        return Section(found.name, TITLE, nothing, tables=_absent_tables(found))
    lines = {impl: line for impl in found.impls if (line := reuse_line([s for s in every if s.impl == impl]))}
    squares = {(one.workload, one.impl): square for one in every if (square := quadratic(one))}
    besides = beside(every, OTHER)
    return Section(
        found.name,
        TITLE,
        _lead(every, lines),
        _paragraphs(every, lines, squares, besides),
        [
            _law_table(every),
            _coefficient_table(every),
            _speed_table(every, besides),
            _exponent_table(every),
            _candidate_table(every),
            *_absent_tables(found),
        ],
        _figures(found, every, lines, besides),
        _claims(every, lines, squares),
    )


TITLE = "Beyond the fully connected network"


# --- verdicts -------------------------------------------------------------------------------------------------------


def of_article(one: Series) -> Told:
    """Whether a step costs n·m·p: time grows along every axis as n·m does, and sizes that no fit saw do not belie it."""
    grown, fit = _grown(one), one.fit(ARTICLE)
    if grown.word == "refuted" or fit is None or fit.heldout_cells < LEAST_HELDOUT or predicts(fit) != "refuted":
        return grown
    off = f"unseen sizes {words.percent(fit.heldout_median, 1)} off in the median"
    why = f"A fixed time and n·m, fitted to the smaller sizes, are refuted by the others: {off}"
    return Told("refuted", off, f"{why} (allowed {words.percent(HELDOUT_BAND)}). Growth alone: {grown.why}")


def _grown(one: Series) -> Told:
    """Whether time grows as n·m·p along every axis."""
    judged = [along for along in one.along if along.beyond_nm is not None or along.predicted is not None]
    known = [along for along in judged if along.beyond_nm is not None and math.isfinite(along.beyond_nm.low)]
    if not known:
        return Told("inconclusive", "no exponent", f"Nothing tells: {_doubts(judged) or 'no axis was swept'}.")
    word = overall([along.word_of_nm for along in judged])
    decisive = [along for along in known if along.word_of_nm == word] or known
    furthest = max(decisive, key=lambda along: abs(_beyond(along).value))
    sentence = "; ".join(_beside_nm(along) for along in known)
    return Told(word, _evidence(furthest), f"{sentence}. {_meaning(word, decisive, judged)}")


def _beyond(along: Along) -> Interval:
    assert along.beyond_nm is not None
    return along.beyond_nm


def _evidence(along: Along) -> str:
    by = _beyond(along)
    return f"{along.axis}: exponent {words.with_interval(by.value, by.low, by.high, '+.2f')} to that of n·m"


def _beside_nm(along: Along) -> str:
    return (
        f"along {along.axis} time grows as {_power(along)}, and n·m as "
        f"{_base(along.variable)}^{(along.exponent.value or 0.0) - _beyond(along).value:.2f}"
    )


def _meaning(word: Word, decisive: Sequence[Along], judged: Sequence[Along]) -> str:
    """What the exponents say of n·m·p."""
    if word == "supported":
        return f"All lie within ±{BAND} of n·m: growth as n·m·p is supported."
    if word == "inconclusive":
        return f"Inconclusive: {_doubts([a for a in judged if a.word_of_nm == 'inconclusive'])}."
    faster = [along.axis for along in decisive if _beyond(along).value > 0]
    if faster:
        return f"Growth as n·m·p is refuted: along {_listed(faster)} time grows faster, so the upper bound O(n·m·p) fails too."
    slower = _listed([along.axis for along in decisive])
    return (
        f"Growth as n·m·p is refuted: along {slower} time grows more slowly, which leaves O(n·m·p) a loose upper bound."
    )


def _doubts(axes: Sequence[Along]) -> str:
    return "; ".join(f"along {along.axis} {_doubt(along)}" for along in axes)


def _doubt(along: Along) -> str:
    if along.beyond_nm is None or not math.isfinite(along.beyond_nm.low):
        return along.exponent.reason
    return f"the interval, {words.with_interval(*_ends(along.beyond_nm))}, reaches across ±{BAND}"


def _growth_told(along: Along) -> str:
    if along.exponent.value is None:
        return f"{along.axis}: too few sizes past fixed overhead"
    of_law = "" if along.beyond_own is None else f", by the law {along.exponent.value - along.beyond_own.value:.2f}"
    return f"{along.axis} {_power(along)}{of_law}"


def fails_from_above(one: Series) -> bool:
    """Whether n·m·p is refuted by growth faster than it says."""
    return any(along.word_of_nm == "refuted" and _beyond(along).value > 0 for along in one.along)


def of_own(one: Series) -> Told:
    """Whether the workload's own law holds: time grows along every axis as the fitted law does, and held-out sizes.

    An axis along which no power was predicted counts where it has an exponent.
    """
    fit = one.fit(OWN)
    judged = [along for along in one.along if along.predicted is not None or along.exponent.value is not None]
    found: dict[str, Word] = {_growth_told(along): along.word for along in judged}
    if fit is None:
        return Told("inconclusive", "no fit", f"{len(one.cells)} cells are too few to fit the law.")
    evidence = "no held-out sizes"
    if fit.heldout_cells >= LEAST_HELDOUT:
        evidence = f"unseen sizes {words.percent(fit.heldout_median, 1)} off in the median"
        found[
            f"unseen sizes {words.percent(fit.heldout_median, 1)} off in the median, nine in ten at most "
            f"{words.percent(fit.heldout_p90, 1)}"
        ] = predicts(fit)
    word = overall(list(found.values())) if found else "inconclusive"
    by = {
        kind: [what for what, said in found.items() if said == kind]
        for kind in ("supported", "inconclusive", "refuted")
    }
    parts = [f"{kind}: {', '.join(what)}" for kind, what in by.items() if what]
    against = by["refuted"] or by["inconclusive"]
    if word != "supported" and against:
        evidence = against[0]
    why = f"{'; '.join(parts)} (exponents: within ±{BAND} of the law's; unseen: within {words.percent(HELDOUT_BAND)})."
    return Told(word, evidence, why[0].upper() + why[1:])


def of_line(line: ReuseLine) -> Told:
    """Whether time per n·m goes as the reuse of weights, for all workloads alike."""
    slope = words.with_interval(line.slope.value, line.slope.low, line.slope.high)
    evidence = f"slope {slope}, nine in ten cells within {line.miss:.2g}×"
    outside = line.slope.high < 1 - BAND or line.slope.low > 1 + BAND
    inside = line.slope.low >= 1 - BAND and line.slope.high <= 1 + BAND
    word: Word = "refuted" if outside or line.median_miss > ON_LINE else "inconclusive"
    if inside and line.miss <= ON_LINE:
        word = "supported"
    why = (
        f"Over {line.workloads} workloads time per n·m grows as the reuse of weights to the power {slope} (their means, with an "
        f"interval over workloads). About the line where every use costs {words.seconds(line.price)}, half of the cells past "
        f"overhead lie within a factor of {line.median_miss:.2g} and nine in ten within {line.miss:.2g}; {line.worst} lies "
        f"furthest off, at {line.off:.2g} times the line. One line means a slope of 1 ± {BAND} and nine in ten cells within "
        f"{ON_LINE:g}×."
    )
    return Told(word, evidence, why)


def of_square(square: Quadratic) -> Told:
    """Whether a part of the time grows as the square of a sequence's length."""
    share = square.share
    evidence = f"{_share(share)} of the time at {square.size} = {square.largest:,.0f}"
    if square.largest < LONG:
        return Told("inconclusive", evidence, f"No sequence of {LONG} or more was measured.")
    if share.low > 0:
        return Told(
            "supported", evidence, f"The part that grows as {square.size}² takes {evidence}; its interval excludes 0."
        )
    if share.high < LEAST_QUADRATIC:
        return Told("refuted", evidence, f"The part that grows as {square.size}² takes {evidence}: hardly any.")
    return Told(
        "inconclusive", evidence, f"The part that grows as {square.size}², {evidence}, has no interval apart from 0."
    )


def _claims(
    every: Sequence[Series], lines: Mapping[str, ReuseLine], squares: Mapping[tuple[str, str], Quadratic]
) -> list[Claimed]:
    made = []
    for workload in _workloads(every):
        of = {one.impl: one for one in every if one.workload == workload}
        stated = next(iter(of.values())).stated
        made += [
            Claimed(
                f"{workload}: each weight is used once for each example, so that a step costs n·m·p",
                "growth along every axis beside that of n·m, and sizes that no fit saw",
                {impl: of_article(one) for impl, one in of.items()},
                "architectures-exponents",
            ),
            Claimed(
                f"{workload}: {stated['statement']}",
                "growth along every axis beside the fitted law's, and sizes that no fit saw",
                {impl: of_own(one) for impl, one in of.items()},
                "architectures-exponents",
                "ours",
            ),
        ]
    for workload in dict.fromkeys(name for name, _ in squares):
        cells = {impl: of_square(square) for (name, impl), square in squares.items() if name == workload}
        size = next(square.size for (name, _), square in squares.items() if name == workload)
        said = f"{workload}: attention makes a part of the time grow as {size}²"
        made.append(Claimed(said, f"time along {size}, to {LONG} and beyond", cells, "architectures-exponents", "ours"))
    if lines:
        said = "time per n·m goes as how often a weight is used, on one line for all workloads"
        cells = {impl: of_line(line) for impl, line in lines.items()}
        made.append(Claimed(said, "all cells past fixed overhead", cells, "architectures-reuse", "ours"))
    # without any exponent there is no figure of them to point to
    if not any(along.exponent.value is not None for one in every for along in one.along):
        made = [Claimed(c.statement, c.experiment, c.cells, "architectures-reuse", c.source) for c in made]
    return made


# --- words ----------------------------------------------------------------------------------------------------------


def _workloads(every: Sequence[Series]) -> list[str]:
    return list(dict.fromkeys(one.workload for one in every))


def _ends(found: Interval) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def _base(variable: str) -> str:
    """A variable as what a power is of."""
    return variable if variable.isidentifier() else f"({variable})"


def _power(along: Along) -> str:
    found = along.exponent
    if found.value is None:
        return f"{_base(along.variable)}^?"
    ends = [math.nan if end is None else end for end in (found.ci_low, found.ci_high)]
    return f"{_base(along.variable)}^{words.with_interval(found.value, ends[0], ends[1])}"


def _share(found: Interval) -> str:
    if not math.isfinite(found.low):
        return words.percent(found.value)
    value, low, high = (
        100 * min(end, 1.0) for end in (found.value, found.low, found.high)
    )  # a share has no more than all
    return f"{value:.0f} [{low:.0f}, {high:.0f}] %"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _grouped(every: Sequence[Series], holds: Callable[[Series], bool]) -> str:
    """Workloads for which something holds, with the implementations where it is not all of them; empty for none."""
    said = []
    for workload in _workloads(every):
        of = [one for one in every if one.workload == workload]
        chosen = [one.impl for one in of if holds(one)]
        if chosen:
            said.append(workload if len(chosen) == len(of) else f"{workload} ({', '.join(chosen)})")
    return _listed(said)


def _lead(every: Sequence[Series], lines: Mapping[str, ReuseLine]) -> str:
    verdict = {id(one): of_article(one).word for one in every}
    growth = {id(one): _grown(one).word for one in every}
    groups = {
        "time grows faster than n·m·p says for": lambda s: fails_from_above(s),
        "only more slowly for": lambda s: growth[id(s)] == "refuted" and not fails_from_above(s),
        "its growth is open, but n·m·p is refuted by sizes that no fit saw, for": lambda s: (
            verdict[id(s)] == "refuted" and growth[id(s)] != "refuted"
        ),
        "as it says for": lambda s: verdict[id(s)] == "supported",
        "and no interval decides for": lambda s: verdict[id(s)] == "inconclusive",
    }
    parts = [f"{said} {names}" for said, holds in groups.items() if (names := _grouped(every, holds))]
    sentence = f"{'; '.join(parts)}."
    errors = [fit.heldout_median for one in every if (fit := one.fit(OWN)) and fit.heldout_cells >= LEAST_HELDOUT]
    if errors:
        low, high = (words.percent(end, 1) for end in (min(errors), max(errors)))
        sentence += f" Asked about sizes that no fit saw, the workloads' own laws err by {low} to {high} in the median"
        article = [fit.heldout_median for one in every if (fit := one.fit(ARTICLE))]
        sentence += f", n·m·p by up to {words.percent(max(article))}." if article else "."
    if lines:
        told_lines = [
            f"{impl} {line.slope.value:.2f}, nine in ten cells within {line.miss:.2g}×" for impl, line in lines.items()
        ]
        sentence += f" Time per n·m grows as the reuse of weights to the power of: {'; '.join(told_lines)}."
    return sentence[0].upper() + sentence[1:]


def _paragraphs(
    every: Sequence[Series],
    lines: Mapping[str, ReuseLine],
    squares: Mapping[tuple[str, str], Quadratic],
    besides: Sequence[Beside],
) -> list[str]:
    said = [
        "Every workload was measured along axes of its own: one size is moved while the others stay usual, or where the axis "
        "puts them. In each process each step was held to a forward-only float64 reference before it was timed. p is the same "
        "at all sizes of a workload, so of n·m·p n·m is left. An exponent is the slope of the time less its fixed part, where "
        f"that is at most {words.percent(OVERHEAD_SHARE)}; n·m·p holds along an axis where time's exponent less that of n·m "
        f"lies within ±{BAND}.",
        "Laws have coefficients that cannot be negative and are fitted to relative errors; the one that wins has the fewest "
        "terms among those whose errors on cells left out in turn are not clearly larger than the best. Unseen sizes have more "
        "work than any that was fitted.",
    ]
    for (workload, impl), square in squares.items():
        said.append(f"{workload} by {impl}, along {square.axis}: {of_square(square).why}")
    if besides:
        impl_worst = max(besides, key=lambda one: one.slowest[1].value)
        where, ratio = impl_worst.slowest
        said.append(
            f"Slowest beside {OTHER} anywhere: {impl_worst.impl} with {words.with_interval(*_ends(ratio))} times its time, for "
            f"{impl_worst.workload} at {where}."
        )
    if lines:
        said.append(
            "A weight's use is a multiply-add forward with what goes with it backward: products for an example over 3m. It is "
            "below 1 where the first layer, which needs no gradient of its input, holds many of the weights, and for embeddings, "
            "which are looked up."
        )
    return said


# --- tables ---------------------------------------------------------------------------------------------------------


def _law_table(every: Sequence[Series]) -> Table:
    rows = []
    for one in every:
        article, best, first = of_article(one), one.best, one.fit(ARTICLE)
        rows.append(
            (
                one.workload,
                one.impl,
                article.word,
                article.evidence,
                _law_name(one, best),
                "; ".join(f"{a.axis} {_power(a)}" for a in one.along if a.exponent.value is not None) or "–",
                _heldout(best),
                _heldout(first),
                of_own(one).word,
            )
        )
    header = (
        "workload",
        "library",
        "n·m·p?",
        "rests on",
        "law that predicts best",
        "growth past overhead",
        "unseen, median",
        "by n·m·p",
        "own law",
    )
    return Table("Does n·m·p hold, and which law does? Time of a step.", header, rows, (6, 7))


def _law_name(one: Series, fit: LawFit | None) -> str:
    if fit is None:
        return "too few cells"
    shown = {ARTICLE: "n·m", OWN: "its own"}.get(fit.law.name, fit.law.name)
    return f"{shown}: {' + '.join(term.text for term in fit.law.terms)}"


def _heldout(fit: LawFit | None) -> str:
    return "–" if fit is None or not fit.heldout_cells else words.percent(fit.heldout_median, 1)


def _coefficient_table(every: Sequence[Series]) -> Table:
    rows = [
        (
            one.workload,
            one.impl,
            _sum(one.best, words.seconds),
            _sum(one.best_memory, _bytes),
            _heldout(one.best_memory),
        )
        for one in every
    ]
    caption = (
        "Laws of time and of peak memory, fitted: those that predict best. Terms whose coefficient is 0 are left out."
    )
    return Table(caption, ("workload", "library", "seconds of a step", "bytes of a step", "unseen, median"), rows, (4,))


def _sum(fit: LawFit | None, form: Callable[[float], str]) -> str:
    if fit is None:
        return "–"
    parts = [
        form(value) if term.text == "1" else f"{form(value)}·{term.text}"
        for value, term in zip(fit.coefficients, fit.law.terms, strict=True)
        if value > 0
    ]
    return " + ".join(parts) or "0"


def _bytes(value: float) -> str:
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f} B" if rounded >= 1000 else f"{rounded:g} B"


def _speed_table(every: Sequence[Series], besides: Sequence[Beside]) -> Table:
    rows = []
    for one in every:
        shares = one.share_of_ceiling
        middle = one.middle
        usual = next((b for b in besides if (b.impl, b.workload) == (one.impl, one.workload)), None)
        rows.append(
            (
                one.workload,
                one.impl,
                "–" if middle is None else words.seconds(float(middle["time_s"])),
                "–"
                if middle is None
                else words.percent(float(shares[(one.cells["layers"] == middle["layers"]).to_numpy()][0])),
                words.percent(float(np.nanmax(shares))) if np.isfinite(shares).any() else "–",
                _at_middle(one, usual),
                f"{usual.slowest[1].value:.2f}, {usual.slowest[0]}" if usual else "–",
                words.seconds(float(one.cells["first_call_s"].max())),
            )
        )
    header = (
        "workload",
        "library",
        "usual sizes",
        "of the ceiling",
        "at best",
        f"over {OTHER}",
        f"slowest over {OTHER}",
        "first call, longest",
    )
    caption = (
        "Speed: time of a step at the usual sizes, its share of the matrix-product ceiling there and at the best size, and the "
        f"time as a multiple of {OTHER}'s, paired by pass."
    )
    return Table(caption, header, rows, (2, 3, 4, 5, 7))


def _at_middle(one: Series, usual: Beside | None) -> str:
    if usual is None or one.middle is None or one.middle["layers"] not in usual.ratios:
        return "–"
    return words.with_interval(*_ends(usual.ratios[one.middle["layers"]]))


def _exponent_table(every: Sequence[Series]) -> Table:
    rows = []
    for one in every:
        for along in one.along:
            found = along.exponent
            between = "–" if found.range_low is None else f"{found.range_low:,.0f} to {found.range_high:,.0f}"
            rows.append(
                (
                    one.workload,
                    one.impl,
                    along.axis,
                    "–" if along.predicted is None else f"{_base(along.variable)}^{along.predicted:g}",
                    _power(along),
                    "–" if along.beyond_nm is None else words.with_interval(*_ends(along.beyond_nm), "+.2f"),
                    between,
                    found.reason,
                )
            )
    header = ("workload", "library", "axis", "predicted", "measured", "beyond n·m", "range", "rests on")
    return Table("Exponents along every axis.", header, rows, folded=True)


def _candidate_table(every: Sequence[Series]) -> Table:
    rows = [
        (
            one.workload,
            one.impl,
            _law_name(one, fit) + (" ★" if fit is one.best else ""),
            words.percent(fit.crossvalidated_median, 1),
            words.percent(fit.heldout_median, 1),
            words.percent(fit.heldout_p90, 1),
        )
        for one in every
        for fit in one.fits
    ]
    header = ("workload", "library", "law of time", "left out in turn", "unseen, median", "unseen, p90")
    return Table(
        "All laws that were tried; ★ wins. Errors are absolute and relative.", header, rows, (3, 4, 5), folded=True
    )


def _absent_tables(found: Found) -> list[Table]:
    """What implementations cannot do, with the reason; nothing where all can all."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in found.rows:
        if "cannot" in row:
            reasons.setdefault((row["impl"], row["cannot"]), []).append(row["workload"])
    rows = [(impl, _listed(names), reason) for (impl, reason), names in reasons.items()]
    return [Table("Not measured.", ("library", "workloads", "why"), rows)] if rows else []


# --- figures --------------------------------------------------------------------------------------------------------


def _figures(
    found: Found, every: Sequence[Series], lines: Mapping[str, ReuseLine], besides: Sequence[Beside]
) -> list[Drawn]:
    made = [
        Drawn(
            "architectures-reuse",
            "Time per n·m against the reuse of weights",
            "Were n·m·p the law, all would lie at one height. Hollow: cells of whose time more than "
            f"{words.percent(OVERHEAD_SHARE)} does not grow with n."
            + (f" Line: every use of a weight costs the same. {_one_line(lines)}" if lines else ""),
            workload_figures.reuse(every, lines, "mostly overhead"),
        )
    ]
    grown = workload_figures.growth(found, every)
    if grown is not None:
        caption = (
            "Exponents of time past fixed overhead with 95 % intervals, in the variable that each axis moves. Grey: what the "
            f"workload's law predicts, ±{BAND}; where no power is predicted there is none. Axes on which no library has enough "
            "sizes past fixed overhead are left out."
        )
        made.append(Drawn("architectures-exponents", "Growth along each workload's own axes", caption, grown))
    ratios = {
        (one.impl, one.workload): one.ratios[told(of.stated["middle"])]
        for one in besides
        for of in every
        if (of.impl, of.workload) == (one.impl, one.workload) and told(of.stated["middle"]) in one.ratios
    }
    caption = "At the usual sizes of each workload" + (
        "; right: paired by pass, with 95 % intervals." if ratios else "."
    )
    made.append(
        Drawn(
            "architectures-speed",
            "Speed at the usual sizes",
            caption,
            workload_figures.speed(found, every, ratios, OTHER),
        )
    )
    return made


def _one_line(lines: Mapping[str, ReuseLine]) -> str:
    said = {
        "supported": "they lie on it",
        "refuted": "they do not lie on it",
        "inconclusive": "it is open whether they lie on it",
    }
    parts = [
        f"{impl}: {said[of_line(line).word]}, nine in ten cells within {line.miss:.2g}×" for impl, line in lines.items()
    ]
    return "; ".join(parts) + "."
