# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cells: the same work done by ours and by the peers, in turns; and checks: one number against a limit."""
import dataclasses
import statistics
import sys
import typing

from measure.scratch import Problem


@dataclasses.dataclass
class Subject:
    name: str
    run: typing.Callable             # run(seconds) -> Sample
    target: float | None = None      # of a peer: ours must be at least so many times as fast
    above: bool = False              # the target is to be exceeded, not only reached
    samples: list = dataclasses.field(default_factory=list)
    problem: str | None = None


@dataclasses.dataclass
class Cell:
    section: str
    title: str
    subjects: list                   # ours first


def _take(subject, seconds):
    """One run. A subject that fails once is left out from then on; the others are still compared."""
    if subject.problem:
        return None
    try:
        return subject.run(seconds)
    except Problem as problem:
        subject.problem = str(problem)
        return None


def measure(cell, rounds, seconds):
    """`rounds` rounds, each begun by another subject; where there is more than one, a short run of each before."""
    print(f"  {cell.title}", file=sys.stderr, flush=True)
    for subject in cell.subjects if rounds > 1 else []:
        _take(subject, seconds / 4)
    for number in range(rounds):
        start = number % len(cell.subjects)
        for subject in cell.subjects[start:] + cell.subjects[:start]:
            subject.samples.append(_take(subject, seconds))


def _median(numbers):
    numbers = list(numbers)
    return statistics.median(numbers) if numbers else None


def _ratio(ours, peer):
    """The median of what ours makes of the peer's rate in each round: slow minutes of the machine cancel out."""
    return _median(a.rate / b.rate for a, b in zip(ours.samples, peer.samples) if a and b)


def _verdict(target, above, ratio):
    if target is None:
        return None
    if ratio is None:
        return "SKIP"
    return "PASS" if ratio > target or (ratio == target and not above) else "FAIL"


def report(cell):
    """A cell as rows for the table: dictionaries, ready for JSON."""
    ours = cell.subjects[0]
    rows = []
    for subject in cell.subjects:
        taken = [sample for sample in subject.samples if sample]
        ratio = None if subject is ours else _ratio(ours, subject)
        rows.append({
            "name": subject.name,
            "rate": _median(sample.rate for sample in taken),
            "cpu_us": _median(sample.cpu for sample in taken),
            "ratio": ratio,
            "target": subject.target,
            "above": subject.above,
            "verdict": _verdict(subject.target, subject.above, ratio),
            "rates": [sample.rate for sample in taken],
            "problem": subject.problem,
        })
    return {"section": cell.section, "title": cell.title, "subjects": rows}


def check(section, title, value, limit, unit, problem=None):
    """A single number that must stay under a limit; None when it could not be had."""
    verdict = "SKIP" if value is None else "PASS" if value < limit else "FAIL"
    return {"section": section, "title": title, "value": value, "limit": limit, "unit": unit, "verdict": verdict,
            "problem": problem}
