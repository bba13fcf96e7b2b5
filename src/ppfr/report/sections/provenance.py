"""How a record was made: command, pretraining provenance, data, stages, machine and configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import final

from ppfr.core import duration
from ppfr.report._blocks import Block, Code, Details, Facts, Finding, Prose, Row, Table
from ppfr.report._figures import Figure, text_figure
from ppfr.report._record_view import RecordView
from ppfr.report._section import Section
from ppfr.report._wording import count, listed

_STAGE_TONES = {"done": "good", "failed": "bad", "pending": "note", "skipped": "caution"}
_DATA_ROLES = {
    "training": "training of recognisers",
    "public": "training of adversaries",
    "protocol": "test of recognition",
}


@final
class ProvenanceAndData(Section):
    """What is needed to reproduce the record."""

    title, anchor = "How it was made", "provenance"
    is_background = True
    terms = {  # noqa: RUF012
        "System, baseline": "A system is a chain of masker, recogniser, template scheme and matcher, any of which may "
        "be absent. Its baseline is the system without protection that it is compared with.",
        "Interval": "Range that contains the true value with the stated probability, for people other than those "
        "tested. Subjects, not images, are resampled. Keys are not resampled.",
        "n": "Number of comparisons, searches, images or people that a figure is based on.",
    }

    def findings(self, view: RecordView) -> Iterable[Finding]:
        """Stages that failed or have not run."""
        broken = [stage["title"] for stage in view["stages"] if stage["status"] == "failed"]
        num_waiting = sum(stage["status"] in ("pending", "skipped") for stage in view["stages"])
        if broken:
            yield Finding(
                tone="bad",
                title="This run is incomplete: a stage failed",
                text=f"{listed(broken)} failed; see the stages below. Figures that depend on it are missing.",
            )
        elif num_waiting:
            yield Finding(
                tone="caution",
                title="This run is not finished",
                text=f"{num_waiting} of {len(view['stages'])} stages have not run. The figures shown are measured.",
            )

    def facts(self, view: RecordView) -> Iterable[tuple[str, str]]:
        """People, preset, seed, machine, time, version."""
        machine, software, experiment = view["machine"], view["software"], view["experiment"]
        version = software["ppfr"]
        if software["commit"]:
            version += f", commit {software['commit'][:10]}{' with changes' if software['is_modified'] else ''}"
        is_cpu = machine["device"] == "cpu"
        return [
            ("Faces", {"real": "of real people", "synthetic": "synthetic"}[experiment["people"]]),
            ("Preset", experiment["preset"] or "–"),
            ("Seed", str(experiment["seed"])),
            ("Machine", f"{machine['num_cores']} CPU cores" if is_cpu else machine["device_name"]),
            ("Computing time", duration(view["wall_s"])),
            ("ppfr", version),
        ]

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """From the command to the configuration."""
        experiment, machine = view["experiment"], view["machine"]
        yield Prose(title="The command")
        yield Code(text=experiment["command"], is_command=True)
        words = f"Seed {experiment['seed']}; configuration {experiment['config_sha256'][:16]}."
        yield Prose(text=[words], style="small")
        yield from _pretraining(view)
        yield from _data(view)
        yield _stages(view)
        facts = [
            (name.replace("_", " "), "unknown" if value is None else str(value)) for name, value in machine.items()
        ]
        facts += [("python", view["software"]["python"]), *view["software"]["packages"].items()]
        config = json.dumps(experiment["config"], indent=1, ensure_ascii=False)
        yield Details(
            summary="Machine, versions and resolved configuration", blocks=[Facts(rows=facts), Code(text=config)]
        )


def _pretraining(view: RecordView) -> Iterator[Block]:
    holders = [*view.systems, *view["recognisers"]]
    rows = [
        Row(
            label=holder["label"],
            note=item["used_as"],
            cells=[
                text_figure(item["name"]),
                text_figure(item["training_data"]),
                text_figure("; ".join(item["may_have_seen"]) or "nothing of the test set, as far as is known"),
                text_figure(item["licence"]),
            ],
        )
        for holder in holders
        for item in holder["provenance"]
    ]
    if not rows:
        yield Prose(title="Pretraining provenance", text=["No pretrained network was used for this record."])
        return
    yield Table(
        title="Pretraining provenance",
        first="Used in",
        columns=["Network", "Trained on", "May have seen", "Terms"],
        rows=rows,
    )


def _data(view: RecordView) -> Iterator[Block]:
    yield Table(
        title="Data",
        first="Set",
        columns=["Use", "Images", "Subjects", "Fingerprint"],
        rows=[
            Row(
                label=data["name"],
                cells=[
                    text_figure(_DATA_ROLES[data["role"]]),
                    Figure(main=count(data["num_images"])),
                    Figure(main=count(data["num_subjects"])),
                    text_figure(data["fingerprint"][:12]),
                ],
            )
            for data in view["data"]
        ],
    )
    if view["disjointness"]:
        pairs = "; ".join(" and ".join(each["sets"]) for each in view["disjointness"])
        yield Prose(text=[f"Checked to share no subject: {pairs}."], style="small")


def _stages(view: RecordView) -> Table:
    return Table(
        title="Stages",
        first="Stage",
        columns=["State", "Time"],
        rows=[
            Row(
                label=stage["title"],
                note="" if stage["error"] is None else f"{stage['error']['kind']}: {stage['error']['message']}",
                cells=[
                    text_figure(stage["status"], tone=_STAGE_TONES[stage["status"]]),
                    Figure(main=duration(stage["wall_s"]) if stage["wall_s"] else "–"),
                ],
            )
            for stage in view["stages"]
        ],
    )
