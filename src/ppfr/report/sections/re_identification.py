"""Re-identification: to which subject a masked image belongs, and whether two images show one subject."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import final

from ppfr.report import _charts as charts
from ppfr.report._blocks import Bar, Bars, Block, Drawing, Finding, Mark, Row, Table
from ppfr.report._drawings import trade_offs
from ppfr.report._figures import MISSING, Figure, share_figure
from ppfr.report._record_view import MAX_SENTENCES, Entry, RecordView, sees_mixed
from ppfr.report._section import Section
from ppfr.report._wording import count, listed, number, percent, percent_interval
from ppfr.report.sections._gallery_attacks import (
    GALLERY_KIND,
    gallery_rows,
    gallery_table,
    observations_in_words,
    same_photo,
)
from ppfr.report.sections.verification import RECOGNISES_FROM, sees_plain_faces

IS_BROKEN_AT = 0.5
"""Re-identification rate (lower end of the interval) from which a protection does not prevent re-identification."""

_KIND = "re_identification"
_MIXTURES = "mixture_re_identification"
_MIXED = (
    "Where a row says so, the adversary has an image of the mixed training set instead of a masked image, and the "
    "person at rank 1 counts as found if anybody in that image is that person."
)
_FIRST_ONLY = (
    "Rows marked “first person only” come from records that compare a mixed image with the first of its k people and "
    "with no other. Nothing distinguishes the first, so a perfect adversary has 1/k there: they understate the leakage."
)
_FIRST = "first person only"
_WITHSTOOD = ("good", "withstood these attacks: none re-identified target subjects above the chance level")


@final
class ReIdentification(Section):
    """Re-identification rates of the adversaries, with chance level and upper bound."""

    kinds = (_KIND, _MIXTURES, GALLERY_KIND)
    title, anchor = "Re-identification", "re-identification"
    terms = {  # noqa: RUF012
        "Secret": "Parameters of the protection that only the deployment knows, such as the order of its channels. The "
        "server recognises people without knowing them, so masked images still contain the identity.",
        "Target subject": "A person whose masked image or template the adversary has.",
        "Re-identification rate, rank-1": "Share of masked images that the adversary assigns to the right person in a "
        "gallery of plain photos. Rank-5: the right person is among the first five.",
        "Chance level": "The result of an adversary who ignores the masked image: 1 divided by the gallery size. For "
        "anybody in a mixture of k people, k divided by the gallery size.",
        "Upper bound": "The result with plain images in place of protected ones.",
        "Attack without training": "A look-up in a gallery of plain photos: with the server's own recogniser, with the "
        "law of the noise, or with a regression in closed form. It is the weakest level of attack, “trivial”.",
        "Matched filter": "The likelihood-ratio test of whether an observation is the masked image of a given photo.",
        "Mixed training image": "A sum of masked images of several people, from which a recogniser is trained. Only "
        "training sets are mixed: an image that is sent for recognition is masked but not mixed. Target subjects are "
        "mixed with each other, so everybody in a mixture is in the gallery.",
        "Anybody in the mixture": "Share of mixed images for which the person at rank 1 is any of the people in it.",
        "Heaviest": "Share of mixed images for which the person at rank 1 is the one with the largest weight.",
        "The k among the k best": "With k people in a mixed image, the share of them among the k best of the gallery.",
    }
    rules = (
        "A protection “does not prevent re-identification” if the strongest adversary re-identifies at least "
        f"{percent(IS_BROKEN_AT)} of the target subjects, by the lower end of the interval. It “prevents it only in "
        "part” if the lower end is above the chance level, or if an adversary distinguishes pairs of one person from "
        f"pairs of two with an accuracy of at least {percent(RECOGNISES_FROM)}, by the lower end. Otherwise it "
        "withstood these attacks, which does not show that it withstands others. All attacks count, with and without "
        "training, at the number of observations at which each is strongest. A protection “does not hide which photo "
        "was masked” if the matched filter picks the photo itself among those of the gallery for at least "
        f"{percent(IS_BROKEN_AT)} of the target subjects. A failed control voids a good verdict."
    )

    def is_shown(self, view: RecordView) -> bool:
        """If the record has attacks on masked images, whether or not they have run."""
        return bool(_attacks(view))

    def headline(self, view: RecordView) -> Iterable[str]:
        """The systems of each verdict."""
        verdicts: dict[str, list[str]] = {}
        for system in view.protected:
            verdicts.setdefault(verdict(view, system)[1], []).append(system["label"])
        for words, labels in verdicts.items():
            if len(view.protected) <= MAX_SENTENCES:
                yield from (f"{label} {words}." for label in labels)
            else:
                who = f"All {len(labels)}" if len(labels) == len(view.protected) else listed(labels)
                yield f"{who} {_plural(words) if len(labels) > 1 else words}."

    def findings(self, view: RecordView) -> Iterable[Finding]:
        """One per protected system."""
        return [_finding(view, system) for system in view.protected]

    def columns(self, view: RecordView) -> Sequence[str]:
        """The rate of the strongest adversary."""
        return ["Re-identification rate, rank-1"] if _has_rates(view) else []

    def cells(self, view: RecordView, system: Entry) -> Sequence[Figure]:
        """The rate with its attack."""
        if not _has_rates(view):
            return []
        worst = _worst(view, system["name"])
        return [
            MISSING if worst is None else share_figure(worst[1]["rank_1"]).with_note(_strongest_words(view, *worst))
        ]

    def charts(self, view: RecordView) -> Iterable[Drawing]:
        """Accuracy against the rate."""
        if not _has_rates(view):
            return []

        def rank_1(system: str) -> Entry | None:
            worst = _worst(view, system)
            return None if worst is None else worst[1]["rank_1"]

        rows = [row for kind in (_KIND, GALLERY_KIND) for row in view.rows(kind)]
        chance = min(row["chance_rank_1"] for row in rows)  # of one person; that of mixtures is on their bars
        label = "Re-identification rate of the strongest adversary, rank-1, %"
        return trade_offs(view, rank_1, title="Re-identification", label=label, chance=chance)

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """Bars of the rates, and of the accuracy on pairs."""
        outcomes = _outcomes(view)
        mixed = f" {_MIXED}" if any(sees_mixed(attack) for attack, _ in outcomes) else ""
        rates = [
            attack_bar(
                view,
                attack,
                row["rank_1"],
                f"{count(row['gallery_size'])} people; {row['counts']}",
                chance=row["chance_rank_1"],
                bound=row["plain_rank_1"]["value"],
            )
            for attack, row in outcomes
        ]
        if rates:
            text = (
                "The adversary compares its estimate with one plain photo of each person in the gallery. The bars show "
                "rank-1."
            )
            first = f" {_FIRST_ONLY}" if any(row["counts"].endswith(_FIRST) for _, row in outcomes) else ""
            yield Bars(title="Re-identification rate", text=text + mixed + first, bars=rates)
        if view.rows(_MIXTURES):
            yield _mixture_table(view)
        yield from gallery_table(view)
        pairs = [
            attack_bar(view, attack, row["accuracy"], row["protocol"], chance=0.5)
            for system in view.systems
            for attack, row in _pairs(view, system["name"])
        ]
        if pairs:
            text = "Accuracy on the pairs of the protocol: one image as the server sees it, the other a plain photo."
            yield Bars(title="Verification of masked against plain images", text=text + mixed, bars=pairs)


def attack_bar(
    view: RecordView, attack: Entry, estimate: Entry, note: str, *, chance: float, bound: float | None = None
) -> Bar:
    """A share that an attack achieved on a system, with its chance level and upper bound."""
    kind = view.role_words(attack) + (" · mixed training images" if sees_mixed(attack) else "")
    marks = [Mark(value=chance, words="chance level", is_dotted=True)]
    return Bar(
        group=attack["system"],
        label=f"{attack['label']} on {view.label(attack['system'])}",
        note=f"{kind} · {note}",
        figure=share_figure(estimate),
        colour=charts.colour_of(view.series(attack["system"])),
        value=estimate["value"],
        low=estimate["low"],
        high=estimate["high"],
        marks=marks if bound is None else [*marks, Mark(value=bound, words="upper bound")],
    )


def adversary_words(view: RecordView, attack: Entry) -> str:
    """For example "U-Net recovery, secret known"."""
    words = f"{attack['label']}, {view.knowledge_words(attack)}"
    return f"{words}, mixed training images" if sees_mixed(attack) else words


def verdict(view: RecordView, system: Entry) -> tuple[str, str]:
    """(tone, words) on whether a system prevents re-identification."""
    attacks = [a for a in _attacks(view) if a["system"] == system["name"] and a["role"] == "attack"]
    done = {attack["name"] for kind in (_KIND, GALLERY_KIND) for attack, _ in view.outcomes(kind, system["name"])}
    if not any(attack["name"] in done for attack in attacks):
        return "note", "has not been attacked yet" if attacks else "is not attacked in this record"
    found = _leak(view, system)
    if found is not None:
        return found
    if view.failed_controls(_attacks(view)):
        return "note", "was not tested validly: a control failed"
    if any(a["name"] not in done for a in _attacks(view) if a["system"] == system["name"]):
        return "note", "has no verdict yet: some attacks on it have not run"
    return _WITHSTOOD


def _leak(view: RecordView, system: Entry) -> tuple[str, str] | None:
    worst, same = _worst(view, system["name"]), same_photo(view, system["name"])
    found: tuple[str, str] | None = None
    if worst is not None:
        attack, row = worst
        where = " from its mixed training images" if sees_mixed(attack) else ""
        if row["rank_1"]["low"] >= IS_BROKEN_AT:
            return "bad", f"does not prevent re-identification{where}"
        if row["rank_1"]["low"] > row["chance_rank_1"]:
            found = "caution", f"prevents re-identification{where} only in part"
    if same is not None and same[1]["rank_1"]["low"] >= IS_BROKEN_AT:
        return "bad", "does not hide which photo was masked"
    if found is not None:
        return found
    pairs = _best_at_pairs(view, system["name"])
    if worst is not None and pairs is not None and pairs[1]["accuracy"]["low"] >= RECOGNISES_FROM:
        where = " from its mixed training images" if sees_mixed(worst[0]) else ""
        why = "no attack re-identifies people above the chance level, but one distinguishes pairs of one person"
        return "caution", f"prevents re-identification{where} only in part: {why}"
    if same is not None and same[1]["rank_1"]["low"] > same[1]["chance_rank_1"]:
        return "caution", "hides only in part which photo was masked"
    return None


def _attacks(view: RecordView) -> list[Entry]:
    return view.attacks_that_see("masked_images", "mixed_images", "masked_images_with_pairs")


def _outcomes(view: RecordView, system: str | None = None) -> list[tuple[Entry, Entry]]:
    """(attack, row), where a row of one mixed image of each subject has the rate of anybody in the mixture as rank-1.

    With averaged epochs, the subject that all mixtures have in common is the one to find. `counts` says in words what
    the row counts.
    """
    found: list[tuple[Entry, Entry]] = []
    for attack, row in view.outcomes(_KIND, system):
        mixtures = view.row(_MIXTURES, attack=attack["name"])
        counts, rates = f"rank-5 {percent(row['rank_5']['value'])}", {}
        if mixtures is not None and mixtures["num_epochs"] == 1:
            anybody = mixtures["anybody"]
            rates = {"rank_1": anybody["rate"], "chance_rank_1": anybody["chance"], "plain_rank_1": anybody["plain"]}
            counts = "anybody in the mixture"
        elif mixtures is not None:
            counts = f"average of the mixtures of {mixtures['num_epochs']} epochs; {counts}"
        elif sees_mixed(attack):
            counts = f"{counts}; {_FIRST}"
        found.append((attack, {**row, **rates, "counts": counts}))
    return found


def _mixture_table(view: RecordView) -> Table:
    rows = []
    for attack, row in view.outcomes(_MIXTURES):
        rates = [row["anybody"], row["heaviest"], row["found"]]
        rows.append(
            Row(
                label=f"{attack['label']} on {view.label(attack['system'])}",
                key=view.key(attack["system"]),
                note=f"{view.role_words(attack)} · mixtures of {count(row['num_epochs'])} epoch"
                f"{'' if row['num_epochs'] == 1 else 's'} · {number(row['mean_people'], 1)} people on average",
                cells=[
                    share_figure(each["rate"]).with_note(
                        f"chance level {percent(each['chance'], 2)}", f"plain images {percent(each['plain']['value'])}"
                    )
                    for each in rates
                ],
            )
        )
    return Table(
        title="Who is in a mixed training image",
        first="Attack",
        columns=["Anybody in the mixture", "Heaviest", "The k among the k best"],
        rows=rows,
        caption="Nothing distinguishes the first of the k people in a mixture, so all of them count. “Plain images” is "
        "the upper bound: the same with the plain images of the people in the mixture.",
    )


def _has_rates(view: RecordView) -> bool:
    return bool(view.rows(_KIND) or view.rows(GALLERY_KIND))


def _worst(view: RecordView, system: str) -> tuple[Entry, Entry] | None:
    """(attack, row) of the strongest attack, with or without training, from any number of observations."""
    found = [*_outcomes(view, system), *gallery_rows(view, system, photo="another photo")]
    return max(found, key=lambda pair: float(pair[1]["rank_1"]["value"]), default=None)


def _strongest_words(view: RecordView, attack: Entry, row: Entry) -> str:
    words = adversary_words(view, attack)
    return f"{words}, {observations_in_words(row)}" if row.get("num_observations", 1) > 1 else words


def _pairs(view: RecordView, system: str) -> Iterator[tuple[Entry, Entry]]:
    for attack in view.attacks(system=system):
        for row in view.rows("verification", source="attack", name=attack["name"]):
            if row["accuracy"] is not None:
                yield attack, row


def _best_at_pairs(view: RecordView, system: str) -> tuple[Entry, Entry] | None:
    return max(_pairs(view, system), key=lambda pair: pair[1]["accuracy"]["low"], default=None)


def _plural(words: str) -> str:
    first, _, rest = words.partition(" ")
    verbs = {"hides": "hide", "does": "do", "prevents": "prevent", "has": "have", "was": "were", "is": "are"}
    return f"{verbs.get(first, first)} {rest.replace('its ', 'their ').replace('on it ', 'on them ')}"


def _finding(view: RecordView, system: Entry) -> Finding:
    name, worst = system["name"], _worst(view, system["name"])
    tone, words = verdict(view, system)
    title = f"{system['label']} {words}"
    if worst is None or tone == "note":
        return Finding(tone="note", title=title, text="No re-identification rate can be given.", system=name)
    attack, row = worst
    with_secret = {
        "known": "with the deployment's secret",
        "unknown": "without the deployment's secret",
        "none": "with knowledge of the method",
    }[attack["secret"]]
    mixtures = view.row(_MIXTURES, attack=attack["name"])
    num_epochs = 1 if mixtures is None else mixtures["num_epochs"]
    seen = "one mixed training image" if sees_mixed(attack) else _observed(row)
    seen = seen if num_epochs == 1 else f"the average of {num_epochs} mixed training images of each target subject"
    whom = (
        f"re-identifies {percent(row['rank_1']['value'])} of the target subjects"
        if mixtures is None or num_epochs > 1
        else f"finds somebody who is in it in {percent(row['rank_1']['value'])} of the cases"
    )
    text = (
        f"From {seen}, an adversary {with_secret} ({attack['label']}) {whom} among "
        f"{count(row['gallery_size'])} people (interval {percent_interval(row['rank_1'])}; chance level "
        f"{percent(row['chance_rank_1'], 2)}, plain images {percent(row['plain_rank_1']['value'])})."
    )
    without = [
        other["rank_1"]
        for each, other in _outcomes(view, name)
        if each["role"] == "attack" and not each["threat_model"]["knows_secret"]
    ]
    if attack["threat_model"]["knows_secret"] and without:
        best = max(without, key=lambda estimate: estimate["value"])
        text += f" Without the secret the strongest achieves {percent(best['value'])} ({percent_interval(best)})."
    same = same_photo(view, name)
    if same is not None:
        by, row = same
        text += (
            f" From {observations_in_words(row)}, the matched filter picks the masked photo itself among "
            f"{count(row['gallery_size'])} for {percent(row['rank_1']['value'])} of the target subjects (interval "
            f"{percent_interval(row['rank_1'])})."
        )
    pairs = _best_at_pairs(view, name)
    if pairs is not None:
        by, row = pairs
        text += (
            f" {by['label']} decides {percent(row['accuracy']['value'])} of the pairs of {row['protocol']} correctly "
            f"(interval {percent_interval(row['accuracy'])}; chance level one half)."
        )
    if sees_mixed(attack):
        if mixtures is None:
            text += " Only the first person of each mixture counts, so this understates the leakage."
        text += f" {_what_is_sent(view, system)}"
    return Finding(tone=tone, title=title, text=text, system=name)


def _observed(row: Entry) -> str:
    return observations_in_words(row) if "num_observations" in row else "one masked image"


def _what_is_sent(view: RecordView, system: Entry) -> str:
    """Where the page shows the leakage of the images that devices send for recognition, which are not mixed."""
    if sees_plain_faces(view, system):
        return "For recognition a device sends the plain face, which is not protected."
    own = max(
        gallery_rows(view, system["name"], photo="another photo"),
        key=lambda pair: float(pair[1]["rank_1"]["value"]),
        default=None,
    )
    if own is not None:
        return (
            "For recognition a device sends a masked image that is not mixed: without training "
            f"{percent(own[1]['rank_1']['value'])} are re-identified from {observations_in_words(own[1])}."
        )
    same = [
        other["label"]
        for other in view.protected
        if other["masker"] == system["masker"]
        and any(a["role"] == "attack" and not sees_mixed(a) for a, _ in view.outcomes(_KIND, other["name"]))
    ]
    found = f" is shown under {listed(same)}" if same else " is not measured in this record"
    return f"For recognition a device sends a masked image that is not mixed; its leakage{found}."
