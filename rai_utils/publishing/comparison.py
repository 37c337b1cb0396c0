"""What two runs of a notebook do not agree on."""

from collections.abc import Mapping
from typing import Any

from rai_utils.publishing.intervals import Interval, Number


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
    for name in published["metrics"].keys() & fresh["metrics"].keys():
        metric, again = published["metrics"][name], fresh["metrics"][name]
        lines += _distances(name, metric, metric["value"], again["value"], again["interval"])
    for name in ours.keys() & theirs.keys():
        claim, again = ours[name], theirs[name]
        lines += _distances(name, claim, claim["measured"], again["measured"], again["interval"])
        lines += _numbers_apart(name, claim["numbers"], again["numbers"])
        for key in ("verdict", "rule", "statement"):
            if claim[key] != again[key]:
                lines.append(f"{name}: {key} published {claim[key]!r}, computed {again[key]!r}")
    return sorted(lines)


def _numbers_apart(
    name: str, published: Mapping[str, Any], computed: Mapping[str, Any]
) -> list[str]:
    """Return a line for each number of a claim's rule that is another one, or another number."""
    if published.keys() != computed.keys():
        return [f"{name}: numbers published {list(published)}, computed {list(computed)}"]
    lines = []
    for what, number in published.items():
        one = number | {"interval": None}
        lines += _distances(f"{name}, {what}", one, one["value"], computed[what]["value"], None)
    return lines


def _distances(
    name: str, published: Mapping[str, Any], value: Number, again: Number, interval: Interval | None
) -> list[str]:
    pairs = [("value", value, again)]
    if (published["interval"] is None) != (interval is None):
        return [f"{name}: interval published {published['interval']}, computed {interval}"]
    if interval is not None:
        pairs += zip(("low", "high"), published["interval"], interval, strict=True)
    tolerance = published["tolerance"]
    return [
        f"{name}: {part} published {one}, computed {other}, tolerance {tolerance}"
        for part, one, other in pairs
        if (one != other if one is None or other is None else abs(one - other) > tolerance)
    ]
