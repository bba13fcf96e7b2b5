"""What each command does: takes the values of the command line and returns a plain dictionary."""

from typing import TYPE_CHECKING

from ppfr.core import exports_on_use

if TYPE_CHECKING:
    from ppfr.workflows._attack import AttackRequest as AttackRequest
    from ppfr.workflows._attack import attack_method as attack_method
    from ppfr.workflows._evaluate import evaluate_model as evaluate_model
    from ppfr.workflows._match import FaceReader as FaceReader
    from ppfr.workflows._match import match_enrol as match_enrol
    from ppfr.workflows._match import match_identify as match_identify
    from ppfr.workflows._match import match_refresh as match_refresh
    from ppfr.workflows._match import match_remove as match_remove
    from ppfr.workflows._match import match_status as match_status
    from ppfr.workflows._match import match_verify as match_verify
    from ppfr.workflows._photos import align_photos as align_photos
    from ppfr.workflows._photos import find_yunet as find_yunet
    from ppfr.workflows._photos import mask_photo as mask_photo
    from ppfr.workflows._report import write_reports as write_reports
    from ppfr.workflows._run import list_experiments as list_experiments
    from ppfr.workflows._run import run_experiment as run_experiment
    from ppfr.workflows._run import run_named_experiment as run_named_experiment
    from ppfr.workflows._stores import check_images as check_images
    from ppfr.workflows._stores import describe_data as describe_data
    from ppfr.workflows._stores import describe_model as describe_model
    from ppfr.workflows._stores import describe_models as describe_models
    from ppfr.workflows._stores import examine_machine as examine_machine
    from ppfr.workflows._stores import export_network as export_network
    from ppfr.workflows._stores import fetch_data_set as fetch_data_set
    from ppfr.workflows._stores import fetch_networks as fetch_networks
    from ppfr.workflows._stores import write_synthetic as write_synthetic
    from ppfr.workflows._train import TrainingRequest as TrainingRequest
    from ppfr.workflows._train import train_system as train_system
else:
    __getattr__, __dir__ = exports_on_use(
        __name__,
        {
            "_attack": ("AttackRequest", "attack_method"),
            "_evaluate": ("evaluate_model",),
            "_match": (
                "FaceReader",
                "match_enrol",
                "match_identify",
                "match_refresh",
                "match_remove",
                "match_status",
                "match_verify",
            ),
            "_photos": ("align_photos", "find_yunet", "mask_photo"),
            "_report": ("write_reports",),
            "_run": ("list_experiments", "run_experiment", "run_named_experiment"),
            "_stores": (
                "check_images",
                "describe_data",
                "describe_model",
                "describe_models",
                "examine_machine",
                "export_network",
                "fetch_data_set",
                "fetch_networks",
                "write_synthetic",
            ),
            "_train": ("TrainingRequest", "train_system"),
        },
    )
