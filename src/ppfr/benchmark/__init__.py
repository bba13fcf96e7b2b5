"""Experiment -> run -> result record -> report."""

from ppfr.benchmark._evaluate import EvaluationSettings as EvaluationSettings
from ppfr.benchmark._evaluate import evaluate as evaluate
from ppfr.benchmark._experiment import Arm as Arm
from ppfr.benchmark._experiment import ArmTraining as ArmTraining
from ppfr.benchmark._experiment import AttackPlan as AttackPlan
from ppfr.benchmark._experiment import ControlRule as ControlRule
from ppfr.benchmark._experiment import Experiment as Experiment
from ppfr.benchmark._experiment import Judge as Judge
from ppfr.benchmark._experiment import Knowledge as Knowledge
from ppfr.benchmark._experiment import Question as Question
from ppfr.benchmark._experiment import Reported as Reported
from ppfr.benchmark._experiment import RunOptions as RunOptions
from ppfr.benchmark._experiment import TrainedArm as TrainedArm
from ppfr.benchmark._experiment import Victims as Victims
from ppfr.benchmark._masked_pictures import picture_of_masked as picture_of_masked
from ppfr.benchmark._report import render_report as render_report
from ppfr.benchmark._report import write_report as write_report
from ppfr.benchmark._run import run as run
from ppfr.benchmark._schema import SCHEMA_VERSION as SCHEMA_VERSION
from ppfr.benchmark._schema import Record as Record
from ppfr.benchmark._schema import check_record as check_record
from ppfr.benchmark._schema import read_record as read_record
from ppfr.benchmark._schema import record_schema as record_schema
from ppfr.benchmark._schema import write_record as write_record
