"""What a record says, in plain words: the headline and the findings at the head of the report.

The rules are few and printed in the report: they turn figures into words, never into other figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ppfr.report._wording import count, listed, percent, percent_interval, points

IS_BROKEN_AT = 0.5
"""A protection whose victims are named at least this often (lower end of the interval) does not hide identity."""

RECOGNISES_FROM = 0.55
"""Below this accuracy (lower end of the interval) a system, or an adversary, is said not to recognise; guessing gets
0.5."""

KEEPS_WITHIN = 0.01
"""Accuracy counts as kept if the interval rules out a larger loss."""

MOST_SENTENCES = 4
"""With more protections than this the headline sums up, and the findings on each are folded."""

Part = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One statement with its tone: "good", "caution", "bad" or "note"."""

    tone: str
    title: str
    text: str


def arms_of(record: Part, role: str) -> list[Part]:
    """The arms of one role."""
    return [arm for arm in record["arms"] if arm["role"] == role]


def protocol_names(record: Part) -> list[str]:
    """Protocols in the order of the record."""
    return list(dict.fromkeys(p["name"] for arm in record["arms"] for p in arm["protocols"]))


def sees_mixed(attack: Part) -> bool:
    """Whether the adversary has the mixed training set, and not what leaves a device when somebody is recognised."""
    return bool(attack["threat_model"]["sees"] == "mixed_images")


def attacks_on(record: Part, arm: Part) -> list[Part]:
    """Judged attacks and positive controls on an arm."""
    return [a for a in record["attacks"] if a["arm"] == arm["name"] and a["outcome"] is not None]


def worst_linkage(record: Part, arm: Part) -> Part | None:
    """The judged attack that names most victims of an arm."""
    return max(attacks_on(record, arm), key=lambda a: a["outcome"]["linkage"]["top1"]["value"], default=None)


def worst_recovery(record: Part, arm: Part) -> Part | None:
    """The judged attack whose recovered faces are most often accepted as the victim."""
    judged = [a for a in attacks_on(record, arm) if a["outcome"]["recovery"] is not None]
    return max(
        judged, key=lambda a: a["outcome"]["recovery"]["recovered"]["at_far"]["other_image"]["value"], default=None
    )


def best_at_pairs(record: Part, arm: Part) -> tuple[Part, Part] | None:
    """The judged attack that tells most pairs of an arm's rightly, and on which protocol."""
    judged = [(a, p) for a in attacks_on(record, arm) for p in a["outcome"]["pairs"] if p["accuracy"] is not None]
    return max(judged, key=lambda found: found[1]["accuracy"]["low"], default=None)


def failed_controls(record: Part) -> list[Part]:
    """Controls that were judged and did not come out as they must."""
    return [a for a in record["attacks"] if a["control"] is not None and a["control"]["is_met"] is False]


def identity_verdict(record: Part, arm: Part) -> tuple[str, str]:
    """(tone, words) on whether an arm hides who is in the picture."""
    attack = worst_linkage(record, arm)
    if attack is None or not any(a["role"] == "attack" for a in attacks_on(record, arm)):
        is_planned = any(a["arm"] == arm["name"] and a["role"] == "attack" for a in record["attacks"])
        return "note", "has not been attacked yet" if is_planned else "is not attacked in this record"
    return _leak(record, arm, attack) or _reason_for_doubt(record, arm) or _WITHSTOOD


_WITHSTOOD = ("good", "withstood these attacks: none named victims better than a guess")


def _leak(record: Part, arm: Part, attack: Part) -> tuple[str, str] | None:
    linkage = attack["outcome"]["linkage"]
    where = "in its mixed training images" if sees_mixed(attack) else "in the picture"
    if linkage["top1"]["low"] >= IS_BROKEN_AT:
        return "bad", f"does not hide who is {where}"
    if linkage["top1"]["low"] > linkage["chance_top1"]:
        return "caution", f"hides only in part who is {where}"
    told = best_at_pairs(record, arm)
    if told is not None and told[1]["accuracy"]["low"] >= RECOGNISES_FROM:
        found = "no attack names victims better than a guess, but one tells who is the same person"
        return "caution", f"hides only in part who is {where}: {found}"
    return None


def _reason_for_doubt(record: Part, arm: Part) -> tuple[str, str] | None:
    if failed_controls(record):
        return "note", "was not put to a test that counts: a control failed"
    if any(a["arm"] == arm["name"] and a["outcome"] is None for a in record["attacks"]):
        return "note", "is not judged yet: some attacks on it have not run"
    return None


def headline(record: Part) -> str:
    """One sentence on each protection: what it costs, what it hides. Of many protections, what they have in common."""
    protected = arms_of(record, "protected")
    if len(protected) > MOST_SENTENCES:
        return " ".join(_summed_up(record, protected))
    sentences = []
    for arm in protected:
        verdict = identity_verdict(record, arm)[1] if record["attacks"] else ""
        if arm["protocols"] and not all(_recognises(p) for p in arm["protocols"]):
            sentences.append(_both(f"{arm['label']} does not recognise people any better than a guess", verdict))
        elif arm["protocols"]:
            gaps = [p["gap_to_baseline"] for p in arm["protocols"] if p["gap_to_baseline"] is not None]
            cost = _gap_in_words(min(gaps, key=lambda g: g["value"])) if gaps else "is measured without a baseline"
            sentences.append(_both(f"{arm['label']} {cost}", verdict))
        else:
            sentences.append(f"{arm['label']} {verdict or 'is not measured yet'}.")
    if sentences and not record["attacks"]:
        sentences.append("Nothing was attacked in this record.")
    return " ".join(sentences) or "Baselines alone: no protection was measured."


def _both(utility: str, verdict: str) -> str:
    return f"{utility}, and {verdict}." if verdict else f"{utility}."


def _summed_up(record: Part, protected: Sequence[Part]) -> Iterator[str]:
    """The range of accuracies, then who shares a verdict on identity."""
    for name in protocol_names(record):
        found = [(p["accuracy"]["value"], arm["label"]) for arm in protected if (p := _measured(arm, name)) is not None]
        if not found:
            continue
        (lowest, worst), (highest, best) = min(found), max(found)
        plain = [p["accuracy"]["value"] for a in arms_of(record, "baseline") if (p := _measured(a, name)) is not None]
        without = f"; without protection {percent(max(plain), 2)}" if plain else ""
        yield (
            f"{len(found)} protections reach from {percent(lowest, 2)} ({worst}) to {percent(highest, 2)} ({best}) "
            f"accuracy on {name}{without}."
        )
    lost = [a["label"] for a in protected if a["protocols"] and not all(_recognises(p) for p in a["protocols"])]
    if lost:
        yield f"{_those(lost, protected)} {'do' if len(lost) > 1 else 'does'} not recognise people better than a guess."
    verdicts: dict[str, list[str]] = {}
    for arm in protected:
        verdicts.setdefault(identity_verdict(record, arm)[1], []).append(arm["label"])
    for verdict, labels in verdicts.items():
        yield f"{_those(labels, protected)} {_plural(verdict) if len(labels) > 1 else verdict}."


def _measured(arm: Part, protocol: str) -> Part | None:
    return next((p for p in arm["protocols"] if p["name"] == protocol and p["accuracy"] is not None), None)


def _those(labels: list[str], protected: Sequence[Part]) -> str:
    """Names, or "All 12" where it is all of them."""
    return f"All {len(labels)}" if len(labels) == len(protected) else listed(labels)


def _plural(verdict: str) -> str:
    first, _, rest = verdict.partition(" ")
    verbs = {"does": "do", "hides": "hide", "has": "have", "was": "were", "is": "are"}
    return f"{verbs.get(first, first)} {rest.replace('its ', 'their ')}"


def _recognises(protocol: Part) -> bool:
    return protocol["accuracy"] is None or protocol["accuracy"]["low"] >= RECOGNISES_FROM


def _gap_in_words(gap: Part) -> str:
    lost = -gap["value"]
    if gap["low"] <= 0 <= gap["high"] and gap["low"] < -KEEPS_WITHIN:
        interval = f"{points(gap['low'])} to {points(gap['high'])}"
        return f"was tested on too little to say what accuracy it costs ({points(gap['value'])} points, {interval})"
    if gap["low"] <= 0 <= gap["high"]:
        return f"keeps its baseline's accuracy to within what was measurable ({points(gap['value'])} points)"
    if lost > 0:
        return f"costs {100 * lost:.2f} points of accuracy"
    return f"gains {-100 * lost:.2f} points of accuracy"


def findings(record: Part) -> list[Finding]:
    """The statements at the head of the report, gravest kinds first within each protection."""
    return [*state_findings(record), *answers(record), *arm_findings(record)]


def state_findings(record: Part) -> list[Finding]:
    """On the run as a whole: what is missing, what failed."""
    return list(_state_of_the_record(record))


def answers(record: Part) -> list[Finding]:
    """To the questions of the experiment, as far as both sides are evaluated."""
    labels = {arm["name"]: arm["label"] for arm in record["arms"]}
    return [
        Finding(
            tone="note",
            title=question["text"],
            text=" ".join(
                f"On {protocol}, {labels[question['arm']]} {_set_apart(gap)} {labels[question['against']]}: "
                f"{points(gap['value'])} points of accuracy (paired interval {points(gap['low'])} to "
                f"{points(gap['high'])})."
                for protocol, gap in question["gaps"].items()
            ),
        )
        for question in record.get("questions", [])
        if question["gaps"]
    ]


def _set_apart(gap: Part) -> str:
    if gap["low"] <= 0 <= gap["high"]:
        return "is not told apart from"
    return "stands above" if gap["value"] > 0 else "stands below"


def arm_findings(record: Part) -> list[Finding]:
    """On each protection."""
    return [finding for arm in arms_of(record, "protected") for finding in _of_arm(record, arm)]


def _state_of_the_record(record: Part) -> Iterator[Finding]:
    broken = [s for s in record["stages"] if s["status"] == "failed"]
    waiting = [s for s in record["stages"] if s["status"] in ("pending", "skipped")]
    if broken:
        text = (
            f"{listed([s['title'] for s in broken])} failed; see the stages below. Figures that rest on it are missing."
        )
        yield Finding(tone="bad", title="This run is incomplete: something failed", text=text)
    elif waiting:
        text = f"{len(waiting)} of {len(record['stages'])} stages have not run; what is shown here is measured."
        yield Finding(tone="caution", title="This run is not finished", text=text)
    failed = failed_controls(record)
    for expects, should in (
        ("win", "win against an unprotected face"),
        ("chance", "sit at chance where nothing is seen"),
    ):
        labels = list(dict.fromkeys(a["label"] for a in failed if a["control"]["expects"] == expects))
        if labels:
            text = f"{listed(labels)} should {should} and did not; see the controls below."
            title = "A control failed: figures of such an attack are no evidence of protection"
            yield Finding(tone="bad", title=title, text=text)


def _of_arm(record: Part, arm: Part) -> Iterator[Finding]:
    yield from _utility(record, arm)
    yield from _identity(record, arm)
    yield from _appearance(record, arm)


def _utility(record: Part, arm: Part) -> Iterator[Finding]:
    labels = {a["name"]: a["label"] for a in record["arms"]}
    for protocol in arm["protocols"]:
        accuracy = protocol["accuracy"]
        if accuracy is None:
            continue
        num = count(protocol["num_genuine"] + protocol["num_impostor"])
        sees = "plain faces (its training alone was mixed)" if _is_plain(arm) else "only masked faces"
        text = (
            f"A server that sees {sees} decides {percent(accuracy['value'], 2)} of the {num} comparisons of "
            f"{protocol['name']} rightly (interval {percent_interval(accuracy, 2)})."
        )
        gap, tone = protocol["gap_to_baseline"], "note"
        if not _recognises(protocol):
            yield Finding(tone="bad", title=f"{arm['label']} does not recognise", text=f"{text} Guessing gets half.")
            continue
        if gap is not None:
            tone = "good" if gap["value"] >= -0.01 else "caution" if gap["value"] >= -0.05 else "bad"
            text += (
                f" Against {labels[arm['baseline']]}, trained the same way, that is {points(gap['value'])} points "
                f"(paired interval {points(gap['low'])} to {points(gap['high'])})."
            )
        yield Finding(tone=tone, title=f"{arm['label']} recognises", text=text)


def _is_plain(arm: Part) -> bool:
    return bool(arm["masker"]["name"] == "unprotected")


def _identity(record: Part, arm: Part) -> Iterator[Finding]:
    if not record["attacks"]:
        return  # said once, in the headline
    attack = worst_linkage(record, arm)
    tone, verdict = identity_verdict(record, arm)
    if attack is None or tone == "note":
        yield Finding(tone="note", title=f"{arm['label']} {verdict}", text="No figure on leaked identity can be given.")
        return
    linkage, model = attack["outcome"]["linkage"], attack["threat_model"]
    with_secret = {
        "known": "holding the deployment's secret",
        "unknown": "without the deployment's secret",
        "none": "knowing the method",
    }[attack["secret"]]
    text = (
        f"From one {_image(attack)}, an adversary {with_secret} ({attack['label']}) names "
        f"{percent(linkage['top1']['value'])} of the victims among {count(linkage['gallery_size'])} people "
        f"(interval {percent_interval(linkage['top1'])}; a guess names {percent(linkage['chance_top1'], 2)}, "
        f"plain images {percent(linkage['plain_top1']['value'])})."
    )
    without = [
        a["outcome"]["linkage"]["top1"]
        for a in attacks_on(record, arm)
        if a["role"] == "attack" and not a["threat_model"]["knows_secret"]
    ]
    if model["knows_secret"] and without:
        best = max(without, key=lambda e: e["value"])
        text += f" Without the secret the best of them names {percent(best['value'])} ({percent_interval(best)})."
    told = best_at_pairs(record, arm)
    if told is not None:
        (best, protocol), accuracy = told, told[1]["accuracy"]
        text += (
            f" {best['label']} tells {percent(accuracy['value'])} of the pairs of {protocol['name']} rightly "
            f"(interval {percent_interval(accuracy)}; a guess half)."
        )
    if sees_mixed(attack):
        text += f" {_alone(record, arm)}"
    yield Finding(tone=tone, title=f"{arm['label']} {verdict}", text=text)


def _image(attack: Part) -> str:
    return "mixed training image" if sees_mixed(attack) else "masked image"


def _alone(record: Part, arm: Part) -> str:
    """Where the leakage stands of what a device sends, which is not mixed."""
    if _is_plain(arm):
        return "When somebody is recognised, a device sends the plain face: nothing is hidden then."
    same = [
        other["label"]
        for other in arms_of(record, "protected")
        if other["masker"] == arm["masker"]
        and any(a["role"] == "attack" and not sees_mixed(a) for a in attacks_on(record, other))
    ]
    found = f" stands under {listed(same)}" if same else " is not measured in this record"
    return f"When somebody is recognised, a device sends a masked image that is not mixed; what that leaks{found}."


def _source(attack: Part, arm: Part) -> str:
    return f"{'mixed training images of ' if sees_mixed(attack) else ''}{arm['label']}"


def _appearance(record: Part, arm: Part) -> Iterator[Finding]:
    attack = worst_recovery(record, arm)
    if attack is None:
        return
    recovery = attack["outcome"]["recovery"]
    accepted, guessed = recovery["recovered"]["at_far"]["other_image"], recovery["guess"]["at_far"]["other_image"]
    tone = "bad" if accepted["low"] >= IS_BROKEN_AT else "caution" if accepted["low"] > guessed["high"] else "good"
    ceiling = recovery["original"]["at_far"]["other_image"]
    is_void = attack["method"] in {a["method"] for a in failed_controls(record)}
    if tone == "good" and (is_void or ceiling["value"] < IS_BROKEN_AT):
        why = "A control of this attack failed" if is_void else "The judge rejects most of the original images too"
        text = f"{why}, so it says nothing that the recovered faces do not pass."
        yield Finding(tone="note", title="Whether recovered faces pass was not put to a test that counts", text=text)
        return
    title = {
        "bad": "Recovered faces pass for the person",
        "caution": "Some recovered faces pass for the person",
        "good": "Recovered faces do not pass for the person",
    }[tone]
    similar, average = (recovery[kind]["ssim"]["value"] for kind in ("recovered", "guess"))
    text = (
        f"Of the faces that {attack['label']} recovers from {_source(attack, arm)}, an independent recogniser accepts "
        f"{percent(accepted['value'])} as the person (interval {percent_interval(accepted)}) where it lets one "
        f"stranger in {count(1 / recovery['far'])} pass; of the original images it accepts "
        f"{percent(ceiling['value'])}. SSIM {similar:.2f}, against {average:.2f} for an average face."
    )
    yield Finding(tone=tone, title=title, text=text)
