"""What two runs of a notebook do not agree on."""

from collections.abc import Mapping
from typing import Any


def disagreements(published: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[str]:
    """Return a line for each number or verdict of two sets that do not agree."""
    lines = []
    ours = {claim["id"]: claim for claim in published["claims"]}
    theirs = {claim["id"]: claim for claim in fresh["claims"]}
    for what, one, other in (
        ("metrics", list(published["metrics"]), list(fresh["metrics"])),
        ("claims", list(ours), list(theirs)),
        ("figures", published["figures"], fresh["figures"]),
        ("parameters", published["parameters"], fresh["parameters"]),
    ):
        if one != other:
            lines.append(f"{what}: published {one}, computed {other}")
    for name in ours.keys() & theirs.keys():
        claim, again = ours[name], theirs[name]
        told = {key: (claim[key], again[key]) for key in ("verdict", "rule", "statement")}
        told["numbers"] = sorted(claim["numbers"]), sorted(again["numbers"])
        for key, (one, other) in told.items():
            if one != other:
                lines.append(f"{name}: {key} published {one!r}, computed {other!r}")
    numbers, fresh_numbers = _numbers(published), _numbers(fresh)
    for name in numbers.keys() & fresh_numbers.keys():
        lines += _distances(name, numbers[name], fresh_numbers[name])
    return sorted(lines)


def _numbers(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return each number of a set: metrics, claims, and what their rules are made of."""
    numbers = dict(record["metrics"])
    for claim in record["claims"]:
        numbers[claim["id"]] = claim | {"value": claim["measured"]}
        numbers |= {f"{claim['id']}, {name}": each for name, each in claim["numbers"].items()}
    return numbers


def _distances(name: str, published: Mapping[str, Any], computed: Mapping[str, Any]) -> list[str]:
    ours, theirs = published.get("interval"), computed.get("interval")
    pairs = [("value", published["value"], computed["value"])]
    if ours and theirs:
        pairs += zip(("low", "high"), ours, theirs, strict=True)
    elif ours or theirs:
        return [f"{name}: interval published {ours}, computed {theirs}"]
    tolerance = published["tolerance"]
    return [
        f"{name}: {part} published {one}, computed {other}, tolerance {tolerance}"
        for part, one, other in pairs
        if (one != other if one is None or other is None else abs(one - other) > tolerance)
    ]
