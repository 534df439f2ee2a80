"""Verification pairs as an MMEngine dataset."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from numpy.typing import NDArray

from sf2_plugin.data import decode_image, read_pairs

#: Transforms that read an image file; the dataset has read it already.
LOADERS = ("LoadImageFromFile", "mmcv.LoadImageFromFile")


@DATASETS.register_module(force=True)
class FacePairDataset(BaseDataset):
    """The images of a verification pair set, each image once, for a network to embed.

    Pairs come from an InsightFace ``.bin`` file or from a text file with ``path path same`` a line.
    Images reach the pipeline in BGR, as MMCV reads them; a pipeline's own ``LoadImageFromFile`` is
    left out, so that a config's ``test_pipeline`` fits as it is.

    Args:
        ann_file: the ``.bin`` file or pair list, relative to `data_root`.
        data_root: folder that `ann_file` and `image_root` are relative to.
        image_root: folder that a pair list's paths are relative to; by default the folder ``val``
            beside the list where there is one, else the list's own folder.
        follow_outside: also read images that the list's paths, or links, have outside that folder.
        name: what logs call the set; by default the file's name without its suffix.
        flip_test: give each image a second time, mirrored; its embeddings are then added.
        pipeline: transforms after loading.

    Metainfo:
        ``name``; ``issame`` (N,) bool; ``face_of`` (2N,), which image stands at each place of the
        pairs, those of pair i at 2i and 2i + 1; ``views``, items an image.

    Example:
        >>> val_dataloader = dict(
        ...     batch_size=128,
        ...     dataset=dict(type="FacePairDataset", ann_file="lfw.bin", pipeline=test_pipeline),
        ...     sampler=dict(type="DefaultSampler", shuffle=False))
        >>> val_evaluator = dict(type="FaceVerification")

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged ``.bin``, a malformed line, or a missing image, by its line's number.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = "",
        image_root: str | None = None,
        name: str | None = None,
        flip_test: bool = True,
        follow_outside: bool = False,
        pipeline: list[Any] | tuple[Any, ...] = (),
        **kwargs: Any,
    ) -> None:
        self.name = name
        self.views = 2 if flip_test else 1
        self.follow_outside = follow_outside
        kept = without_loaders(pipeline)
        prefix = {} if image_root is None else {"img_path": image_root}
        super().__init__(ann_file, data_root=data_root, data_prefix=prefix, pipeline=kept, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        root = self.data_prefix.get("img_path")
        pairs = read_pairs(self.ann_file, root=root, outside=self.follow_outside)
        first, face_of = pairs.distinct()
        self._metainfo.update(
            name=self.name or pairs.name, issame=pairs.issame, face_of=face_of, views=self.views
        )
        return [
            {"image": pairs.images[place], "flip": bool(view)}
            for place in first
            for view in range(self.views)
        ]

    def prepare_data(self, idx: int) -> Any:
        item = self.get_data_info(idx)
        image = item.pop("image")
        pixels = decode_image(image)
        item |= pipeline_item(pixels[:, ::-1] if item["flip"] else pixels)
        item["img_path"] = "" if isinstance(image, bytes) else str(image)
        return self.pipeline(item)


def pipeline_item(pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """What an RGB image (H, W, 3) looks like to a pipeline's steps after loading."""
    shape = pixels.shape[:2]
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    return {"img": bgr, "img_path": "", "img_shape": shape, "ori_shape": shape}


def without_loaders(pipeline: Iterable[Any]) -> list[Any]:
    """The steps of a pipeline after loading."""
    return [step for step in pipeline if not _loads_images(step)]


def _loads_images(step: Any) -> bool:
    name = step["type"] if isinstance(step, dict) else step
    return (name if isinstance(name, str) else getattr(name, "__name__", "")) in LOADERS
