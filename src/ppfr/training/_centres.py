"""Where a margin head starts that is to go on from a pretrained recogniser."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ppfr.core import ImageSet
from ppfr.models import Backbone
from ppfr.training._batches import class_labels


@torch.no_grad()
def class_centres(teacher: Backbone, images: ImageSet, *, batch_size: int = 64) -> Tensor:
    """The mean unit embedding of each subject's plain images: centres that a pretrained network already agrees with.

    With a few images of a person a head that starts from random centres has to find them first; from these it starts
    where the network's embeddings are.

    Args:
        teacher: takes plain crops; used in evaluation mode, where it is.
        images: the training set.
        batch_size: images at a time.

    Returns:
        (C, D) float32 unit rows on the CPU, in the order of the classes: sorted subjects.
    """
    labels_N = class_labels(images)
    device = next(teacher.parameters()).device
    was_training = teacher.training
    teacher.eval()
    sums_CD = torch.zeros(int(labels_N.max()) + 1, teacher.dim)
    for start in range(0, len(images), batch_size):
        rows = range(start, min(start + batch_size, len(images)))
        pixels_BHWC = torch.from_numpy(np.ascontiguousarray(images.read(rows))).to(device)
        image_BCHW = pixels_BHWC.permute(0, 3, 1, 2).float() / 255.0
        embedding_BD = functional.normalize(teacher(image_BCHW).float(), dim=1)
        sums_CD.index_add_(0, labels_N[rows.start : rows.stop], embedding_BD.cpu())
    teacher.train(was_training)
    return functional.normalize(sums_CD, dim=1)
