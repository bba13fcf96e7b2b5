"""Every attack with its threat model and configuration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import final

from ppfr.report._blocks import Block, Card, Cards, Details, Facts, Prose
from ppfr.report._record_view import Entry, RecordView, sees_mixed
from ppfr.report._section import Section
from ppfr.report._wording import ROLE_WORDS, count, flat_facts

_MAX_UNFOLDED = 12


@final
class Adversaries(Section):
    """What each adversary knows and sees."""

    kinds = ("attack_run", "attack_training")
    title, anchor = "Adversaries", "adversaries"
    is_background = True

    def is_shown(self, view: RecordView) -> bool:
        """If the record has attacks."""
        return bool(view.attacks())

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """A card per attack; if there are many, folded by system."""
        yield Prose(
            text=[
                "What each adversary knows and sees. Those who train do so on people who are not among the target "
                "subjects."
            ]
        )
        if len(view.attacks()) <= _MAX_UNFOLDED:
            yield Cards(cards=[_card(view, attack) for attack in view.attacks()])
            return
        for system in dict.fromkeys(attack["system"] for attack in view.attacks()):
            attacks = view.attacks(system=system)
            noun = "adversary" if len(attacks) == 1 else "adversaries"
            cards = Cards(cards=[_card(view, attack) for attack in attacks])
            yield Details(summary=f"On {view.label(system)}: {len(attacks)} {noun}", blocks=[cards])


def _card(view: RecordView, attack: Entry) -> Card:
    system = attack["system"]
    tags = [(view.key(system), view.label(system)), ("", view.knowledge_words(attack))]
    tags += [("", "mixed training images")] if sees_mixed(attack) else []
    return Card(
        title=attack["label"], tags=[*tags, ("", ROLE_WORDS[attack["role"]])], blocks=list(_blocks(view, attack))
    )


def _blocks(view: RecordView, attack: Entry) -> Iterator[Block]:
    run = view.row("attack_run", attack=attack["name"])
    training = view.row("attack_training", attack=attack["name"])
    yield Prose(text=[attack["threat_model"]["in_words"]])
    measured = "Not measured yet."
    if run is not None:
        measured = f"Measured on {count(run['num_images'])} images of {count(run['num_targets'])} target subjects"
        measured += f", with {view.recogniser_label(attack['recogniser'])}."
    yield Prose(text=[measured], style="small")
    facts = {
        **attack["config"],
        **({} if training is None else training["facts"]),
        **({} if run is None else run["notes"]),
    }
    if facts:
        yield Details(summary="Configuration, compute budget and facts", blocks=[Facts(rows=flat_facts(facts))])
