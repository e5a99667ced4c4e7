"""The verdict: five gates, each with its figures, and what a policy makes of them.

A gate is passed, failed, or not judged. It is not judged where there is nothing to judge by: no promise, no threshold
for slices, nothing blessed yet. That never fails a model, unless `Publish.require` names the gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from headrace.spec import GateName, Publish

Gate = dict[str, Any]
"""{"gate": name, "passed": True, False or None (not judged), "reason": a sentence with the numbers}; if it failed and a
person lets it: "waived": {"by": …, "reason": …}"""

GATES: tuple[str, ...] = get_args(GateName)

_ABSENT = {
    "promise": "nothing is promised",
    "baseline": "there is nothing naive to beat",
    "slices": "the test examples can't be told apart by anything",
}
"""Why a gate is not among those that an evaluation gives."""


def settled(gates: Iterable[Gate], policy: Publish) -> list[Gate]:
    """All gates in their order, as a policy sees them: what is required has to be judged, what is waived may fail.

    Args:
        gates: What evaluation, export and the comparison with the blessed version say; there may be several promises.
        policy: The variant's.
    """
    found = list(gates)
    for name, absent in _ABSENT.items():
        if not any(gate["gate"] == name for gate in found):
            found.append({"gate": name, "passed": None, "reason": absent})
    return [_seen(gate, policy) for gate in sorted(found, key=_place)]


def judge(gates: Iterable[Gate]) -> tuple[str, str]:
    """The verdict over all gates and its reason.

    Returns:
        "fail" if a gate fails that is not waived, "pass" if at least one passes or is waived, else "not judged".
    """
    gates = list(gates)
    failed = [gate for gate in gates if gate["passed"] is False]
    counting = [f"{gate['gate']}: {gate['reason']}" for gate in failed if not gate.get("waived")]
    if counting:
        return "fail", "; ".join(counting)
    if failed:
        words = (f"{g['gate']} failed, waived by {g['waived']['by']}: {g['waived']['reason']}" for g in failed)
        return "pass", "; ".join(words)
    passed = {gate["gate"] for gate in gates if gate["passed"]}
    if not passed:
        return "not judged", "no gate could be judged"
    return "pass", "nothing but the parity could be judged" if passed == {"parity"} else ""


def waivers(gates: Iterable[Gate], policy: Publish) -> list[dict[str, Any]]:
    """Every waiver that was given: gate, by, reason, whether it was needed, and the figures that it lets pass."""
    given = {name: waiver for name, waiver in policy.waivers if waiver is not None}
    failed = {name: [gate["reason"] for gate in gates if gate["gate"] == name and gate.get("waived")] for name in given}
    return [
        {"gate": name, "by": waiver.by, "reason": waiver.reason, "needed": bool(failed[name]), "failed": failed[name]}
        for name, waiver in given.items()
    ]


def in_words(gate: Mapping[str, Any]) -> str:
    """What became of a gate: "passed", "FAILED", "FAILED, waived by Ada: known", "not judged"."""
    words = {True: "passed", False: "FAILED", None: "not judged"}[gate["passed"]]
    waived = gate.get("waived")
    return f"{words}, waived by {waived['by']}: {waived['reason']}" if waived else words


def _seen(gate: Gate, policy: Publish) -> Gate:
    if gate["passed"] is None and gate["gate"] in policy.require:
        gate = {**gate, "passed": False, "reason": f"not judged, and required: {gate['reason']}"}
    waiver = getattr(policy.waivers, gate["gate"], None)
    return {**gate, "waived": waiver.model_dump()} if waiver and gate["passed"] is False else gate


def _place(gate: Gate) -> int:
    return GATES.index(gate["gate"]) if gate["gate"] in GATES else len(GATES)
