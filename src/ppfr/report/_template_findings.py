"""What a record of templates says, in plain words. The rules are few and printed in the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ppfr.core import KEY_KEPT as KEPT
from ppfr.core import KEY_STOLEN as STOLEN
from ppfr.core import KEYED_SEARCH
from ppfr.report._findings import IS_BROKEN_AT, KEEPS_WITHIN, Finding, Part, arms_of, failed_controls, state_findings
from ppfr.report._wording import count, number, percent, percent_interval, points

LINKS_FROM = 0.1
"""D_sys this far above what its bins give by chance (lower end of the interval) counts as linkable."""

RULES = (
    f"A scheme “gives the embedding back” where the best solver that holds the keys passes as at least "
    f"{percent(IS_BROKEN_AT)} of the victims, by the lower end of the interval; it “gives some back” where that end "
    "lies above the false match rate; otherwise it withstood these solvers, which does not show that it withstands "
    f"others. Recognition is kept where the paired interval rules out a loss above {100 * KEEPS_WITHIN:g} point. "
    f"Templates can be linked where the lower end of D_sys lies more than {LINKS_FROM:g} above what its bins give by "
    "chance. Answers of a matcher fail where whoever asks passes as at least "
    f"{percent(IS_BROKEN_AT)} of the people with the largest budget, by the lower end, and are to be minded where that "
    "end lies above what is reached without a query. A failed control voids a good verdict."
)


def protocol_of(arm: Part, scenario: str) -> Part | None:
    """An arm's 1:1 figures in one scenario."""
    return next((p for p in arm["protocols"] if p["name"].endswith(scenario)), None)


def search_of(arm: Part, scenario: str = KEYED_SEARCH, values: str = "float32") -> Part | None:
    """An arm's 1:N figures in one scenario."""
    return next((s for s in arm["identification"] if (s["scenario"], s["values"]) == (scenario, values)), None)


def worst_inversion(record: Part, arm: Part, *, secret: Sequence[str] = ("known", "none")) -> Part | None:
    """The judged attack that passes as most victims at the first false match rate."""
    judged = [
        a for a in record["attacks"] if a["arm"] == arm["name"] and a["outcome"] is not None and a["secret"] in secret
    ]
    judged = [a for a in judged if "at_fmr" in a["outcome"]]  # whoever asks a matcher has no template to invert
    return max(judged, key=lambda a: a["outcome"]["at_fmr"][0]["success"]["value"], default=None)


def headline(record: Part) -> str:
    """What the schemes have in common: what they cost, what they give away, and whether any does neither."""
    protected = arms_of(record, "protected")
    sentences = [*_recognition_summed_up(record, protected), *_inversion_summed_up(record, protected)]
    sentences += [*_links_summed_up(protected), *_both_summed_up(record, protected)]
    sentences += [*_searches_summed_up(record, protected)]
    return " ".join(sentences) or "Nothing has been measured yet."


def _span(rows: Sequence[tuple[float, str]]) -> str:
    (low, worst), (high, best) = min(rows), max(rows)
    return f"{percent(low, 2)} ({worst}) to {percent(high, 2)} ({best})"


def _recognition_summed_up(record: Part, protected: Sequence[Part]) -> Iterator[str]:
    plain = [p for arm in arms_of(record, "baseline") if (p := protocol_of(arm, STOLEN)) is not None]
    for scenario, words in (
        (STOLEN, "whoever claims an identity has its key"),
        (KEPT, "impostors have only their own key"),
    ):
        found = [(a["label"], protocol_of(a, scenario)) for a in protected]
        rows = [(p["accuracy"]["value"], label) for label, p in found if p is not None]
        if rows:
            beside = f"; without protection {percent(plain[0]['accuracy']['value'], 2)}" if plain else ""
            yield f"Where {words}, accuracy 1:1 is {_span(rows)}{beside}."


def _inversion_summed_up(record: Part, protected: Sequence[Part]) -> Iterator[str]:
    found = [(a, w) for a in protected if (w := worst_inversion(record, a, secret=("known",))) is not None]
    if found:
        rows = [(w["outcome"]["at_fmr"][0]["success"]["value"], a["label"]) for a, w in found]
        fmr = found[0][1]["outcome"]["at_fmr"][0]["fmr"]
        yield (
            f"With template and key in hand, a solver recovers an embedding that passes as the person (FMR {fmr:g}) "
            f"for {_span(rows)} of the victims."
        )


def _links_summed_up(protected: Sequence[Part]) -> Iterator[str]:
    linked = [(a, a["unlinkability"][0]) for a in protected if a["unlinkability"]]
    if linked:
        num = sum(_can_be_linked(link) for _, link in linked)
        values = [link["d_sys"]["value"] for _, link in linked]
        yield (
            f"Two templates of one image under two keys can be linked in {num} of {len(linked)} settings (D_sys "
            f"{number(min(values), 2)} to {number(max(values), 2)})."
        )


def _both_summed_up(record: Part, protected: Sequence[Part]) -> Iterator[str]:
    """Whether any scheme keeps recognition with the key stolen and still withstands the solvers."""
    judged = [
        (a, p["gap_to_baseline"], w)
        for a in protected
        if (p := protocol_of(a, STOLEN)) is not None
        and p["gap_to_baseline"] is not None
        and (w := worst_inversion(record, a, secret=("known",))) is not None
    ]
    if not judged:
        return
    good = [a["label"] for a, gap, w in judged if gap["low"] >= -KEEPS_WITHIN and inversion_tone(record, w) == "good"]
    yield (
        f"{', '.join(good)} keeps recognition within 1 point and withstood the solvers."
        if good
        else "No setting both keeps recognition within 1 point with the key stolen and withstands the solvers."
    )


def _searches_summed_up(record: Part, protected: Sequence[Part]) -> Iterator[str]:
    plain = [s for arm in arms_of(record, "baseline") if (s := search_of(arm)) is not None]
    found = [(a, s) for a in protected if (s := search_of(a)) is not None]
    if not found or not plain:
        return
    rows = [(s["rank"]["1"]["value"], a["label"]) for a, s in found]
    gaps = [s["gap_to_baseline"]["rank_1"] for _, s in found if s["gap_to_baseline"] is not None]
    num_below, num_above = sum(g["high"] < 0 for g in gaps), sum(g["low"] > 0 for g in gaps)
    yield (
        f"Where the matcher holds all keys, rank-1 is {_span(rows)}; without protection "
        f"{percent(plain[0]['rank']['1']['value'], 2)}. The keyed mapping lowers rank-1 beyond the paired interval in "
        f"{num_below} of {len(gaps)} settings and raises it in {num_above}."
    )
    kept = [(s["rank"]["1"]["value"], a["label"]) for a, _ in found if (s := search_of(a, KEPT)) is not None]
    if kept:
        yield f"Where every probe comes mapped under its person's own key, rank-1 is {_span(kept)}."


def _can_be_linked(link: Part) -> bool:
    return bool(link["d_sys"]["low"] > link["chance"] + LINKS_FROM)


def inversion_tone(record: Part, attack: Part) -> str:
    """Tone of an attack's success: "note" in place of "good" where a control of such an attack failed."""
    first = attack["outcome"]["at_fmr"][0]
    if first["success"]["low"] >= IS_BROKEN_AT:
        return "bad"
    if first["success"]["low"] > first["fmr"]:
        return "caution"
    return "note" if attack["method"] in {a["method"] for a in failed_controls(record)} else "good"


def findings(record: Part) -> tuple[list[Finding], list[Finding]]:
    """On the run as a whole; then on each scheme."""
    of_arms = [finding for arm in arms_of(record, "protected") for finding in _of_arm(record, arm)]
    return state_findings(record), of_arms


def _of_arm(record: Part, arm: Part) -> Iterator[Finding]:
    yield from _recognition(arm)
    yield from _inversion(record, arm)
    yield from _linkage(arm)
    yield from _search(arm)


def _recognition(arm: Part) -> Iterator[Finding]:
    stolen, kept = protocol_of(arm, STOLEN), protocol_of(arm, KEPT)
    if stolen is None or kept is None:
        return
    gap = stolen["gap_to_baseline"]
    tone = (
        "note"
        if gap is None
        else "good"
        if gap["low"] >= -KEEPS_WITHIN
        else "caution"
        if gap["value"] > -0.05
        else "bad"
    )
    text = (
        f"With the key stolen it decides {percent(stolen['accuracy']['value'], 2)} of "
        f"{count(stolen['num_genuine'] + stolen['num_impostor'])} comparisons rightly (interval "
        f"{percent_interval(stolen['accuracy'], 2)}), with the key kept {percent(kept['accuracy']['value'], 2)}"
        f" ({percent_interval(kept['accuracy'], 2)})."
    )
    for words, protocol in (("stolen", stolen), ("kept", kept)):
        found = protocol["gap_to_baseline"]
        if found is not None:
            interval = f"{points(found['low'])} to {points(found['high'])}"
            text += f" Key {words}: {points(found['value'])} points against the baseline ({interval})."
    yield Finding(tone=tone, title=f"{arm['label']}: what recognition costs", text=text)


def _inversion(record: Part, arm: Part) -> Iterator[Finding]:
    worst = worst_inversion(record, arm, secret=("known",))
    if worst is None:
        return
    tone, rows = inversion_tone(record, worst), worst["outcome"]["at_fmr"]
    verdict = {
        "bad": "gives the embedding back",
        "caution": "gives some embeddings back",
        "good": "withstood these solvers",
        "note": "was not put to a test that counts: a control failed",
    }[tone]
    text = "; ".join(
        f"at FMR {row['fmr']:g} it passes as {percent(row['success']['value'])} of the victims (interval "
        f"{percent_interval(row['success'])}; plain embeddings {percent(row['plain']['value'])})"
        for row in rows
    )
    text = f"With template and key ({worst['label']}), {text}."
    unknown = worst_inversion(record, arm, secret=("unknown",))
    if unknown is not None:
        success = unknown["outcome"]["at_fmr"][0]["success"]
        text += f" Without the key {percent(success['value'])} ({percent_interval(success)})."
    yield Finding(tone=tone, title=f"{arm['label']} {verdict}", text=text)


def _linkage(arm: Part) -> Iterator[Finding]:
    if not arm["unlinkability"] or arm["renewal"] is None:
        return
    link, renewal = arm["unlinkability"][0], arm["renewal"]
    d_sys, old = link["d_sys"], renewal["old_template_accepted"]
    tone = "bad" if d_sys["low"] >= IS_BROKEN_AT else "caution" if _can_be_linked(link) else "good"
    text = (
        f"D_sys of two templates of one image under two keys is {number(d_sys['value'], 2)} (interval "
        f"{number(d_sys['low'], 2)} to {number(d_sys['high'], 2)}; the {link['num_bins']} bins give "
        f"{number(link['chance'], 2)} by chance). Enrolled anew {renewal['num_issues']} times, its equal error rate "
        f"is {percent(min(renewal['eer']), 2)} to {percent(max(renewal['eer']), 2)}; {percent(old['value'])} of old "
        f"templates would be accepted in place of the new one ({percent_interval(old)})."
    )
    words = "can be linked across keys" if tone != "good" else "is not linked by its scores across keys"
    yield Finding(tone=tone, title=f"{arm['label']} {words}", text=text)


def _search(arm: Part) -> Iterator[Finding]:
    keyed = search_of(arm)
    if keyed is None or keyed["gap_to_baseline"] is None:
        return
    gap, rank = keyed["gap_to_baseline"]["rank_1"], keyed["rank"]["1"]
    tone = "good" if gap["low"] >= -KEEPS_WITHIN else "caution" if gap["value"] > -0.05 else "bad"
    text = (
        f"Among {count(keyed['num_references'])} identities, with the matcher holding all keys, rank-1 is "
        f"{percent(rank['value'], 2)} (interval {percent_interval(rank, 2)}), {points(gap['value'])} points against "
        f"the baseline ({points(gap['low'])} to {points(gap['high'])})."
    )
    for scenario, words in ((KEPT, "each probe under its own key"), (STOLEN, "distractors under stolen keys")):
        found: Any = search_of(arm, scenario)
        if found is not None:
            rates = "; ".join(f"{percent(e['value'])} at FPIR {fpir}" for fpir, e in found["fnir_at_fpir"].items())
            text += f" With {words}: rank-1 {percent(found['rank']['1']['value'], 2)}, FNIR {rates}."
    yield Finding(tone=tone, title=f"{arm['label']} in 1:N", text=text)
