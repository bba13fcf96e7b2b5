"""Image recovery: how often recovered faces are accepted as the subject, and how similar they look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import final

from ppfr.report._blocks import Bars, Block, Details, Drawing, Finding, Prose, Row, Table
from ppfr.report._drawings import trade_offs
from ppfr.report._figures import MISSING, Figure, plain_figure, share_figure
from ppfr.report._record_view import Entry, RecordView, sees_mixed
from ppfr.report._section import Section
from ppfr.report._wording import count, percent, percent_interval
from ppfr.report.sections.re_identification import IS_BROKEN_AT, adversary_words, attack_bar

_KIND = "image_recovery"
_SUCCESS = "Impersonation success rate"
_COLUMNS = (_SUCCESS, "SSIM of recovered faces")
_MAX_UNFOLDED = 12


@final
class ImageRecovery(Section):
    """Recovered faces compared with plain images, the average face and the masked images."""

    kinds = (_KIND,)
    title, anchor = "Image recovery", "image-recovery"
    terms = {  # noqa: RUF012
        "Recovered face": "A picture that the adversary computes from a masked image.",
        _SUCCESS: "Share of recovered faces or embeddings that the evaluation recogniser accepts as the target "
        "subject, compared with another image of the subject, at the stated false accept or false match rate.",
        "SSIM, PSNR, LPIPS": "Similarity of two pictures by local structure (1 is identical) and by pixels (dB, higher "
        "is more similar), and their distance by the features of a network (0 is identical). They say little about "
        "identity.",
        "Identity cosine": "Cosine between the embeddings of the recovered face and of the attacked image by the "
        "evaluation recogniser.",
        "Average face": "The mean of the faces that the adversary trains on, used for every target subject: the result "
        "of an adversary who ignores the masked image.",
    }
    rules = (
        "Recovered faces “are accepted as the subject” if at least half are, by the lower end of the interval. “Some” "
        "are accepted if the lower end is above the interval of the average face. A failed control, or an evaluation "
        "recogniser that rejects most plain images, voids a good verdict."
    )

    def is_shown(self, view: RecordView) -> bool:
        """If faces were recovered, or if there are pictures."""
        return bool(view.rows(_KIND) or view.pictures.rows)

    def findings(self, view: RecordView) -> Iterable[Finding]:
        """One per protected system from which faces were recovered."""
        for system in view.protected:
            worst = _worst(view, system["name"])
            if worst is not None:
                yield _finding(view, system, *worst)

    def columns(self, view: RecordView) -> Sequence[str]:
        """Figures of the strongest adversary."""
        return _COLUMNS if view.rows(_KIND) else ()

    def cells(self, view: RecordView, system: Entry) -> Sequence[Figure]:
        """The success rate with its attack, and the highest SSIM of any attack, which may be of another attack."""
        if not view.rows(_KIND):
            return ()
        worst = _worst(view, system["name"])
        if worst is None:
            return MISSING, MISSING
        ssims = [row["recovered"]["ssim"] for _, row in view.outcomes(_KIND, system["name"])]
        most_similar = plain_figure(max(ssims, key=lambda estimate: estimate["value"]), 2)
        return share_figure(_accepted(worst[1])).with_note(adversary_words(view, worst[0])), most_similar

    def charts(self, view: RecordView) -> Iterable[Drawing]:
        """Accuracy against impersonation success rate."""

        def accepted(system: str) -> Entry | None:
            worst = _worst(view, system)
            return None if worst is None else _accepted(worst[1])

        return trade_offs(view, accepted, title=_SUCCESS, label=f"{_SUCCESS} of recovered faces, %")

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """Bars, pictures, and all figures (folded)."""
        outcomes = view.outcomes(_KIND)
        if outcomes:
            yield Bars(
                title="Impersonation with recovered faces",
                text="Share of recovered faces that the evaluation recogniser accepts as the subject, compared with "
                "another photo. The chance level is that of the average face.",
                bars=[
                    attack_bar(
                        view,
                        attack,
                        _accepted(row),
                        f"false accept rate {row['far']:g}",
                        chance=row["average"]["at_far"]["other_image"]["value"],
                        bound=row["plain"]["at_far"]["other_image"]["value"],
                    )
                    for attack, row in outcomes
                ],
            )
        yield Prose(title="Faces")
        if view.pictures.rows and view["experiment"]["people"] == "real":
            yield Prose(
                text=[
                    "These are real people. Keep this file only where the photos themselves may be kept. For "
                    "publication, render the report without pictures."
                ],
                style="warning",
            )
        elif view.pictures.rows:
            yield Prose(text=["Synthetic faces. They show no real person."], style="small")
        yield view.pictures
        tables = [
            Details(
                summary=f"{attack['label']} on {view.label(attack['system'])}, {view.role_words(attack)}",
                blocks=[_likeness(row)],
            )
            for attack, row in outcomes
        ]
        if tables:
            yield Prose(title="All figures of the recovered faces")
            few = len(tables) <= _MAX_UNFOLDED
            yield from tables if few else [Details(summary=f"{len(tables)} attacks", blocks=tables)]


def _accepted(row: Entry) -> Entry:
    found: Entry = row["recovered"]["at_far"]["other_image"]
    return found


def _worst(view: RecordView, system: str) -> tuple[Entry, Entry] | None:
    return view.worst_attack(_KIND, system, lambda row: float(_accepted(row)["value"]))


def _finding(view: RecordView, system: Entry, attack: Entry, row: Entry) -> Finding:
    accepted, average = _accepted(row), row["average"]["at_far"]["other_image"]
    plain = row["plain"]["at_far"]["other_image"]
    tone = "bad" if accepted["low"] >= IS_BROKEN_AT else "caution" if accepted["low"] > average["high"] else "good"
    is_void = any(failed["method"] == attack["method"] for failed in view.failed_controls())
    if tone == "good" and (is_void or plain["value"] < IS_BROKEN_AT):
        why = "A control of this attack failed"
        if not is_void:
            why = "The evaluation recogniser rejects most of the plain images too"
        return Finding(
            tone="note",
            title="Impersonation with recovered faces was not tested validly",
            text=f"{why}. That recovered faces are rejected is therefore no evidence of protection.",
            system=system["name"],
        )
    title = {
        "bad": "Recovered faces are accepted as the subject",
        "caution": "Some recovered faces are accepted as the subject",
        "good": "Recovered faces are not accepted as the subject",
    }[tone]
    similar, without = (row[kind]["ssim"]["value"] for kind in ("recovered", "average"))
    source = f"{'mixed training images of ' if sees_mixed(attack) else ''}{system['label']}"
    text = (
        f"Of the faces that {attack['label']} recovers from {source}, the evaluation recogniser accepts "
        f"{percent(accepted['value'])} as the subject (interval {percent_interval(accepted)}) at the threshold where "
        f"it accepts one impostor in {count(1 / row['far'])}. Of the plain images it accepts "
        f"{percent(plain['value'])}. SSIM is {similar:.2f}; for the average face it is {without:.2f}."
    )
    return Finding(tone=tone, title=title, text=text, system=system["name"])


def _likeness(row: Entry) -> Table:
    return Table(
        first="Measure",
        columns=["Recovered", "Masked image, not attacked", "Average face", "Plain images"],
        rows=list(_likeness_rows(row)),
    )


def _likeness_rows(row: Entry) -> Iterator[Row]:
    pictures = [row["recovered"], row["masked"], row["average"]]
    for field, words, digits in (
        ("ssim", "SSIM (1 is identical)", 3),
        ("psnr", "PSNR, dB", 2),
        ("lpips", "LPIPS (0 is identical)", 3),
        ("identity_cosine", "Identity cosine to the attacked image", 3),
    ):
        cells = [MISSING if picture is None else plain_figure(picture[field], digits) for picture in pictures]
        yield Row(label=words, cells=[*cells, MISSING])
    for name, where in (("at_far", f"false accept rate {row['far']:g}"), ("at_folds", "threshold of the folds")):
        for field, what in (
            ("same_image", "Accepted as the attacked image"),
            ("other_image", "Accepted as another image of the subject"),
            ("other_subject", "Accepted as another subject"),
            ("accuracy", "Verification accuracy"),
        ):
            cells = [
                MISSING if picture is None else share_figure(picture[name][field])
                for picture in (*pictures, row["plain"])
            ]
            yield Row(label=f"{what}, {where}", cells=cells)
