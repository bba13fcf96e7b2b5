"""Networks as `Embedder`s: evaluation mode, no gradients, unit norm, limited batch size.

Shapes: `B` batch, `K P Q` the input's channels and grid, `D` embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ppfr.core import InvalidInputError, RangeError
from ppfr.models._backbone import Backbone, check_shape


class NetworkEmbedder:
    """An `Embedder` around a trained network: plain or masked images -> unit-norm embeddings.

    The network is in evaluation mode during a call. Its mode is restored afterwards.

    Args:
        network: the recogniser. It stays on its device, and inputs are moved to it.
        flip: add the embedding of the mirrored input before normalising, as is usual for verification. Only
            for image networks, since the mirrored masked image is not the mask of the mirrored image.
        batch_size: inputs per forward pass.
        channels_last: memory format of the inputs; the parameters of the network are not changed.

    Raises:
        InvalidInputError: `flip` is set for a masked-input network, or batch_size is below 1.
    """

    def __init__(
        self, network: Backbone, *, flip: bool = False, batch_size: int = 64, channels_last: bool = False
    ) -> None:
        if flip and not network.takes_image:
            raise InvalidInputError(
                "flip=True requires an image network: a mirrored masked image is not the mask of the mirrored image. "
                "Use flip=False, or embed `ImageMasker.mirrored` of the masked image too if the masker supports it"
            )
        if batch_size < 1:
            raise InvalidInputError(f"batch_size={batch_size} must be at least 1")
        self.network, self.flip, self.batch_size = network, flip, batch_size
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    @property
    def dim(self) -> int:
        """D, the embedding length."""
        return self.network.dim

    def embed(self, x_BKPQ: Tensor) -> Tensor:
        """(B, K, P, Q) -> (B, D) float32 with L2 norm 1, on the device of the input.

        Raises:
            ShapeError: the shape is not `in_shape` of the network.
            RangeError: values are not finite or, for an image network, outside [0, 1].
        """
        check_shape(x_BKPQ, self.network.in_shape, "the input of the embedder")
        was_training = self.network.training
        self.network.eval()
        try:
            with torch.inference_mode():
                rows = [self._embed_batch(batch) for batch in x_BKPQ.split(self.batch_size)]
        finally:
            self.network.train(was_training)
        # Clone the result, so that callers may use it in a graph of their own: it was computed in inference mode.
        return torch.cat(rows).to(x_BKPQ.device).clone() if rows else x_BKPQ.new_zeros(0, self.dim)

    def _embed_batch(self, x_BKPQ: Tensor) -> Tensor:
        self._check_values(x_BKPQ)
        first = next(self.network.parameters())
        x_BKPQ = x_BKPQ.to(first.device, first.dtype, memory_format=self._format)
        embedding_BD = self.network(x_BKPQ).float()
        if self.flip:
            embedding_BD = embedding_BD + self.network(x_BKPQ.flip(-1)).float()
        return functional.normalize(embedding_BD, dim=1)

    def _check_values(self, x_BKPQ: Tensor) -> None:
        if x_BKPQ.numel() == 0:
            return
        low, high = x_BKPQ.aminmax()
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise RangeError("the input of the embedder has values that are not finite; check the masker")
        if self.network.takes_image and (low < 0 or high > 1):
            raise RangeError(
                "the input of the embedder has values outside [0, 1]; an image network takes RGB in [0, 1] "
                "(divide uint8 "
                "crops by 255)"
            )
