"""The one training loop, and the objectives that it runs: three ways to a recogniser of masked faces."""

from ppfr.training._adaptation import AdaptationObjective as AdaptationObjective
from ppfr.training._adaptive_mixing import AdaptiveMixingObjective as AdaptiveMixingObjective
from ppfr.training._adaptive_mixing import StrategySettings as StrategySettings
from ppfr.training._centres import class_centres as class_centres
from ppfr.training._channel_analysis import ChannelAnalysisObjective as ChannelAnalysisObjective
from ppfr.training._distillation import DistillationObjective as DistillationObjective
from ppfr.training._fit import fit as fit
from ppfr.training._margin import MarginObjective as MarginObjective
from ppfr.training._masked_input import check_probe as check_probe
from ppfr.training._masked_input import masked_probe as masked_probe
from ppfr.training._objective import Batch as Batch
from ppfr.training._objective import Objective as Objective
from ppfr.training._objective import OptimiserSettings as OptimiserSettings
from ppfr.training._objective import ParameterGroup as ParameterGroup
from ppfr.training._objective import Player as Player
from ppfr.training._plan import Plan as Plan
from ppfr.training._recogniser import RecogniserObjective as RecogniserObjective
from ppfr.training._record import FitRecord as FitRecord
