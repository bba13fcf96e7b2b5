"""Closed sets of option values, which typer validates and completes. Literals, so that `--help` needs no torch."""

from __future__ import annotations

from typing import Literal

Strategy = Literal["scratch", "distill", "finetune"]
Network = Literal["mobilefacenet-small", "mobilefacenet", "ir18", "ir50", "ir_se50"]
Head = Literal["arcface", "cosface", "adaface"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
AnalysisPreset = Literal["fast-test", "laptop"]
