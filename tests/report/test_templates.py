"""Sections on templates and matchers: findings follow the printed rules, and the page shows their rows."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from ppfr.assets import write_record
from ppfr.core import ALL_KEYS, GENUINE_TOKEN, STOLEN_TOKEN, check_record
from ppfr.report import RecordView, write_report
from ppfr.report.sections.identification import Identification
from ppfr.report.sections.oracle_attacks import OracleAttacks
from ppfr.report.sections.secure_decisions import SecureDecisions
from ppfr.report.sections.template_inversion import TemplateInversion
from ppfr.report.sections.unlinkability import Unlinkability
from ppfr.report.sections.verification import Verification

Json = dict[str, Any]


def estimate(value: float, spread: float = 0.02, n: int = 100) -> Json:
    ends = {"low": value - spread, "high": value + spread}
    return {"value": value, **ends, "n": n, "level": 0.95, "method": "", "caveat": ""}


def attack(name: str, system: str, sees: str, secret: str, role: str = "attack") -> Json:
    control = None if role == "attack" else {"expects": "win", "rule": "recovers them"}
    model = {"sees": sees, "knows_secret": secret == "known", "in_words": f"The adversary sees {sees}."}
    about = {"label": "Solver", "method": sees, "system": system, "role": role, "secret": secret}
    return {"name": name, **about, "threat_model": model, "config": {}, "recogniser": "casia", "control": control}


def inversion(name: str, success: float) -> Json:
    passing = {"success": estimate(success), "success_if_solved": estimate(success), "other_subject": estimate(0.02)}
    at_fmr = {"fmr": 0.001, "threshold": 0.3, **passing, "plain": estimate(0.97)}
    link = {"d_sys": estimate(0.3), "chance": 0.04, "num_bins": 10, "range": [-1, 1], "num_non_mated": 99, "omega": 1.0}
    facts = {"median_cosine": 0.5, "largest_cosine": 0.9, "solved": 0.75}
    renewed = {"accepted": estimate(0.11), "linkability": link}
    return {
        "attack": name,
        "cosine": estimate(0.57),
        **facts,
        "at_fmr": [at_fmr],
        "transfer": None,
        "after_renewal": renewed,
    }


def oracle(name: str, answers: str, shares: list[float]) -> Json:
    def accepted(share: float) -> list[Json]:
        return [
            {"fmr": fmr, "threshold": 0.3, "enrolled": estimate(share), "another": estimate(share)}
            for fmr in (1e-3, 1e-4)
        ]

    budgets = [
        {"num_queries": num, "median_asked": num, "cosine": estimate(share), "at_fmr": accepted(share)}
        for num, share in zip((20, 60), shares, strict=True)
    ]
    photograph = [{"fmr": 1e-3, "accepted": estimate(0.91)}, {"fmr": 1e-4, "accepted": estimate(0.86)}]
    about = {"attack": name, "dim": 8, "answers": answers, "starts_from": "faces"}
    return {**about, "by_budget": budgets, "without_queries": accepted(0.03), "photograph": photograph}


def search(system: str, scenario: str, rank_1: float, gap: float | None) -> Json:
    paired = None if gap is None else {"rank_1": estimate(gap, 0.001), "fnir_at_fpir": {"0.01": estimate(0.05)}}
    nums = {"num_references": 20, "num_mated": 40, "num_unmated": 60}
    about = {"system": system, "protocol": "made-1n", "scenario": scenario, "values": "float32"}
    rates = {"fnir_at_fpir": {"0.01": estimate(0.2)}, "rank": {"1": estimate(rank_1)}, "cmc": [rank_1, 0.99]}
    return {**about, **rates, **nums, "gap_to_baseline": paired}


def secure(system: str) -> Json:
    changed = {"pair": 3, "is_genuine": True, "accepted": False}
    changed |= {"float_score_less_threshold": 0.1, "score_less_threshold": -0.1}
    decided = {"far": 0.1, "threshold": 0.5, "num_differ_from_integers_in_the_clear": 0, "differ_from_float": [changed]}
    query = {"kind": "verify", "num_references": 1, "bytes_sent": [3, 2, 2], "num_rounds": 7}
    found = {"values": "int8", "scale": 9, "ring_bits": 16, "rms_error": 0.1, "largest_error": 0.1, "error_bound": 0.1}
    found |= {"accuracy": estimate(0.9), "accuracy_gap_to_float": estimate(-0.001), "eer": estimate(0.1)}
    formats = [{**found, "decisions": [decided], "queries": [query]}]
    return {"system": system, "protocol": "made-lfw", "num_pairs": 6000, "formats": formats}


@pytest.fixture
def template_record(made_record: Json) -> Json:
    """A baseline and a keyed mapping of its embeddings, attacked, searched, asked and decided under sharing."""
    record, pair = made_record, made_record["systems"][:2]
    scheme = {"name": "mapping", "version": 1, "config": {}, "in_dim": 8, "out_dim": 6, "bytes_per_template": 24}
    for system, is_keyed in zip(pair, (False, True), strict=True):
        system.update(masker=None, templates={**scheme, "is_keyed": is_keyed}, recogniser="casia", training=None)
    record["systems"], names = pair, [system["name"] for system in pair]
    plain, mapping = names
    rows = record["results"]["verification"]
    verified = [row for row in rows if row["source"] == "system"]
    gaps = record["results"]["accuracy_gap"]
    record["attacks"] = [
        attack("solve-plain", plain, "templates", "none", "positive control"),
        attack("solve-known", mapping, "templates", "known"),
        attack("solve-unknown", mapping, "templates", "unknown"),
        attack("ask-scores", plain, "scores", "none"),
        attack("ask-decisions", plain, "decisions", "none"),
    ]
    link = {
        "d_sys": estimate(0.3),
        "chance": 0.03,
        "num_bins": 100,
        "range": [-1, 1],
        "num_non_mated": 90,
        "omega": 1.0,
    }
    renewal = {"num_renewals": 2, "num_comparisons": 6000, "far": 0.001, "eer": [0.01, 0.02], "tar_at_far": [0.9, 0.8]}
    selection = {"in_words": "up to 5 keys are tried", "fmr": 0.2, "threshold": 0.08, "num_people": 100}
    run = {"num_targets": 100, "num_images": 100, "notes": {}}
    record["results"] = {
        "verification": [
            *({**row, "scenario": scenario} for row in verified for scenario in (STOLEN_TOKEN, GENUINE_TOKEN)),
            *(row for row in rows if row["source"] == "recogniser"),
        ],
        "accuracy_gap": [{**row, "scenario": scenario} for row in gaps for scenario in (STOLEN_TOKEN, GENUINE_TOKEN)],
        "attack_run": [
            {"attack": each["name"], **run, "is_control_met": None if each["control"] is None else True}
            for each in record["attacks"]
        ],
        "template_inversion": [
            inversion("solve-plain", 0.96),
            inversion("solve-known", 0.62),
            inversion("solve-unknown", 0.04),
        ],
        "unlinkability": [{"system": mapping, "capture": "same", "figures": link}],
        "renewal": [{"system": mapping, **renewal, "old_template_accepted": estimate(0.05)}],
        "key_selection": [{"system": mapping, **selection, "mean_tried": 2.4, "share_below": 0.88}],
        "identification": [
            search(plain, ALL_KEYS, 0.97, None),
            search(mapping, ALL_KEYS, 0.93, -0.04),
            search(mapping, GENUINE_TOKEN, 0.96, -0.01),
        ],
        "oracle_attack": [
            oracle("ask-scores", "exact scores", [0.2, 0.93]),
            oracle("ask-decisions", "decisions", [0.03, 0.04]),
        ],
        "secure_decisions": [secure(plain), secure(mapping)],
        "recogniser_threshold": [
            {"recogniser": "casia", "fmr": 0.001, "threshold": 0.3171, "num_impostor": 1999, "caveat": ""}
        ],
    }
    record["schemas"] = {kind: {} for kind in record["results"]}
    check_record(record)
    return record


@pytest.mark.parametrize(
    ("success", "tone"),
    [(0.62, "bad"), (0.1, "caution"), (0.02, "good")],
)
def test_inversion_verdict_follows_the_printed_rules(
    template_record: Json, read: Any, success: float, tone: str
) -> None:
    rows = template_record["results"]["template_inversion"]
    rows[1] = inversion("solve-known", success)
    (found,) = read.findings(template_record, TemplateInversion())
    assert found.tone == tone and found.system == "ppfr-fd"
    assert f"{100 * success:.1f}\u00a0%" in found.text and "4.0\u00a0%" in found.text  # with and without the key
    if tone == "good":
        read.row(template_record, "attack_run", attack="solve-plain")["is_control_met"] = False
        assert read.findings(template_record, TemplateInversion())[0].tone == "note"


def test_inversion_headline_names_systems_that_keep_accuracy_and_withstand(template_record: Json, read: Any) -> None:
    assert "No system" in read.headline(template_record, TemplateInversion())
    template_record["results"]["template_inversion"][1] = inversion("solve-known", 0.0)
    words = read.headline(template_record, TemplateInversion())
    assert "PPFR-FD keeps accuracy" in words and "No system" not in words


def test_verification_names_the_scenario(template_record: Json, read: Any) -> None:
    assert "(stolen-token)" in read.headline(template_record, Verification())
    assert RecordView(template_record).protocols() == [("made-lfw", STOLEN_TOKEN), ("made-lfw", GENUINE_TOKEN)]


def test_linkability_verdict_compares_d_sys_with_its_chance_level(template_record: Json, read: Any) -> None:
    assert "in 1 of 1 systems" in read.headline(template_record, Unlinkability())
    assert read.findings(template_record, Unlinkability())[0].tone == "caution"
    figures = template_record["results"]["unlinkability"][0]["figures"]
    figures["d_sys"].update(low=0.12, value=0.14)
    assert "in 0 of 1 systems" in read.headline(template_record, Unlinkability())
    (found,) = read.findings(template_record, Unlinkability())
    assert found.tone == "good" and "0.14" in found.text and "0.03" in found.text


def test_identification_compares_with_the_baseline(template_record: Json, read: Any) -> None:
    words = read.headline(template_record, Identification())
    assert "93.00 %" in words and "97.00 %" in words and "1 of 1 systems" in words
    (found,) = read.findings(template_record, Identification())
    assert found.tone == "caution" and "−4.00 points" in found.text


def test_query_budgets_are_the_smallest_that_suffice(template_record: Json, read: Any) -> None:
    by_scores, by_decisions = read.headline(template_record, OracleAttacks()).split("If the matcher returns")[1:]
    assert "60 queries" in by_scores and "half" in by_scores and "(exact scores)" in by_scores
    assert "60 queries" in by_decisions and "4.0 %" in by_decisions
    scores, decisions = read.findings(template_record, OracleAttacks())
    assert (scores.tone, decisions.tone) == ("bad", "note")


def test_secure_decisions_must_be_those_of_the_integers(template_record: Json, read: Any) -> None:
    assert "6\u202f000 decisions" in read.headline(template_record, SecureDecisions())
    assert [found.tone for found in read.findings(template_record, SecureDecisions())] == ["good", "good"]
    decided = template_record["results"]["secure_decisions"][0]["formats"][0]["decisions"][0]
    decided["num_differ_from_integers_in_the_clear"] = 1
    assert read.findings(template_record, SecureDecisions())[0].tone == "bad"


def test_page_shows_the_sections_that_have_rows_and_no_others(template_record: Json, tmp_path: Path) -> None:
    write_record(template_record, tmp_path / "record.json")
    page = write_report(tmp_path, tmp_path / "page.html").read_text("utf-8")
    for words in ("Irreversibility", "Unlinkability and renewability", "Identification, 1:N", STOLEN_TOKEN, "D_sys"):
        assert words in page
    for words in ("60 queries", "up to 5 keys are tried", "Oracle attacks", "Solver", "0.3171", "75.0\u00a0%"):
        assert words in page
    assert 'id="re-identification"' not in page and 'id="image-recovery"' not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    for kind in ("oracle_attack", "secure_decisions", "identification", "unlinkability", "renewal"):
        del template_record["results"][kind]
    write_record(template_record, tmp_path / "record.json")
    page = write_report(tmp_path, tmp_path / "page.html").read_text("utf-8")
    for name in ("oracle-attacks", "secure-decisions", "identification", "unlinkability"):
        assert f'id="{name}"' not in page


def test_records_with_other_kinds_of_results_share_a_page(
    mixing_record: Json, template_record: Json, tmp_path: Path
) -> None:
    other = copy.deepcopy(template_record)
    other["experiment"]["title"] = "Templates"
    write_record(mixing_record, tmp_path / "a" / "record.json")
    write_record(other, tmp_path / "b" / "record.json")
    page = write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "both.html").read_text("utf-8")
    assert page.count('<article class="record"') == 2
    assert 'id="re-identification-1"' in page and 'id="irreversibility-2"' in page
    assert 'id="irreversibility-1"' not in page
