"""The training loop and the tasks that it runs."""

from ppfr.training._adaptive_mixing import AdaptiveMixingTask as AdaptiveMixingTask
from ppfr.training._adaptive_mixing import StrategySettings as StrategySettings
from ppfr.training._centres import class_centres as class_centres
from ppfr.training._channel_analysis import ChannelAnalysisTask as ChannelAnalysisTask
from ppfr.training._distillation import DistillationTask as DistillationTask
from ppfr.training._fine_tuning import FineTuningTask as FineTuningTask
from ppfr.training._fit import fit as fit
from ppfr.training._margin import MarginTask as MarginTask
from ppfr.training._masked_input import check_probe as check_probe
from ppfr.training._masked_input import masked_probe as masked_probe
from ppfr.training._plan import Plan as Plan
from ppfr.training._recogniser import RecogniserTask as RecogniserTask
from ppfr.training._record import FitRecord as FitRecord
from ppfr.training._task import Batch as Batch
from ppfr.training._task import OptimizerGroup as OptimizerGroup
from ppfr.training._task import OptimizerSettings as OptimizerSettings
from ppfr.training._task import ParameterGroup as ParameterGroup
from ppfr.training._task import TrainingTask as TrainingTask
