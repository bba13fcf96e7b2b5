"""Initial class centres of a margin head from a pretrained recogniser."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ppfr.core import ImageSet
from ppfr.data import float_images
from ppfr.models import Backbone
from ppfr.training._batches import class_labels


@torch.no_grad()
def class_centres(teacher: Backbone, images: ImageSet, *, batch_size: int = 64) -> Tensor:
    """The mean unit embedding of the plain images of each subject.

    With few images per subject, a head with random centres has to find them first. These centres match the embeddings
    of the pretrained network from the start.

    Args:
        teacher: takes plain crops. It is used in evaluation mode, on its current device.
        images: the training set.
        batch_size: images per forward pass.

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
        image_BCHW = float_images(images.read(rows), device=device)
        embedding_BD = functional.normalize(teacher(image_BCHW).float(), dim=1)
        sums_CD.index_add_(0, labels_N[rows.start : rows.stop], embedding_BD.cpu())
    teacher.train(was_training)
    return functional.normalize(sums_CD, dim=1)
