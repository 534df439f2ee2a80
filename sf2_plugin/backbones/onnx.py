"""A backbone in an ONNX file, read by its contract: dtype, layout, size, range, order, output."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..evaluation import Calibration
from ..evaluation.input_checks import Pixels
from ..reading import reading
from ..requirements import onnx_libraries
from .digest import file_digest
from .onnx_graph import RANGES, Preprocessing, read_preprocessing
from .protocol import resized

_SIZE = 112
_FLOATS = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
_DTYPES = _FLOATS | {
    f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
#: Widths that embeddings have; other outputs of a network are logits, landmarks, poses.
_WIDTHS = range(64, 2049)


class OnnxBackbone:
    """An ONNX file: of InsightFace, of arcface_torch's exporter, or of anybody.

    The graph tells the dtype, the layout (NCHW or NHWC) and the size, 112 x 112 where it leaves
    that open. Where it begins by normalising, it tells the range of its input, 0..255, 0..1 or
    -1..1; else the input is taken as InsightFace's package takes it, RGB and
    (x - 127.5) / 127.5. Where it swaps channels, or has ImageNet's means, it tells their order.
    The output is the first that has (N, D) numbers, D of an embedding. `inputs` says what was
    read, given or assumed.

    Args:
        path: the file.
        mean, std: a number or three: the input is (x - mean) / std of x in 0..255.
        channels: "rgb" or "bgr".
        output: its name.

    Raises:
        ValueError: the file is damaged, takes no faces or something besides, or cannot be run.
        ImportError: onnx or onnxruntime is not installed.
    """

    calibration: Calibration | None = None

    def __init__(
        self,
        path: Path,
        *,
        mean: ArrayLike | None = None,
        std: ArrayLike | None = None,
        channels: str | None = None,
        output: str | None = None,
    ) -> None:
        onnx, onnxruntime = onnx_libraries()
        if (mean is None) != (std is None):
            raise ValueError("the mean and the std of an input belong together: give both or none")
        if channels not in (None, "rgb", "bgr"):
            raise ValueError(f"channels must be rgb or bgr, got {channels!r}")
        self.path = path
        self.inputs: dict[str, str] = {}
        with reading(path, "ONNX"):
            model = onnx.load(str(path), load_external_data=False)
            weights = [file_digest(each) for each in _external_files(model.graph, path.parent)]
            self.session = _session(onnxruntime, str(path))
        with reading(path):
            self._read_input()
            self._read_preprocessing(model, onnxruntime, mean, std, channels)
            self._read_output(output)
        # torch's exporter leaves the weights to a file beside the model, NAME.onnx.data.
        self.settings = " ".join(["onnx", *self.inputs.values(), f"step {self.step}", *weights])

    def _read_input(self) -> None:
        """The input for faces: its name, dtype, layout and size."""
        inputs = self.session.get_inputs()
        described = ", ".join(f"{each.name} {_shape(each.shape)}" for each in inputs)
        layouts = {each.name: _layout(each.shape) for each in inputs}
        face = next((each for each in inputs if layouts[each.name]), None)
        if face is None:
            raise ValueError(
                f"it takes {described or 'nothing'}; (batch, 3, height, width) or (batch, "
                "height, width, 3) is wanted"
            )
        if len(inputs) > 1:
            others = ", ".join(each.name for each in inputs if each is not face)
            raise ValueError(
                f"it takes {described}: faces alone can be given, and {others} has no "
                "default in the file"
            )
        dtype = _DTYPES.get(face.type)
        if dtype is None:
            raise ValueError(f"it takes {face.type}; numbers are wanted")
        self.input, self.dtype = face.name, np.dtype(dtype)
        self.layout, told = layouts[face.name] or ("NCHW", False)
        batch = face.shape[0]
        self.fixed_batch = batch if isinstance(batch, int) and batch > 0 else None
        sides = face.shape[2:] if self.layout == "NCHW" else face.shape[1:3]
        self.height, self.width = (n if isinstance(n, int) and n > 0 else _SIZE for n in sides)
        open_size = (self.height, self.width) != tuple(sides)
        assumed = [self.layout] * (not told) + [f"{self.width}x{self.height}"] * open_size
        self.inputs["input"] = (
            f"{face.name}: {dtype} {_shape(self._input_shape(self.fixed_batch or 'N'))}"
            + (f", {' and '.join(assumed)} assumed" if assumed else "")
        )

    def _input_shape(self, batch: Any) -> tuple[Any, ...]:
        size = (self.height, self.width)
        return (batch, 3, *size) if self.layout == "NCHW" else (batch, *size, 3)

    def _read_preprocessing(
        self,
        model: Any,
        onnxruntime: Any,
        mean: ArrayLike | None,
        std: ArrayLike | None,
        channels: str | None,
    ) -> None:
        """Mean, std and order of the input's channels."""

        def run(part: bytes, faces: NDArray) -> list[NDArray]:
            return _session(onnxruntime, part, ["CPUExecutionProvider"]).run(
                None, {self.input: faces}
            )

        told = Preprocessing()
        if mean is None or channels is None:
            told = read_preprocessing(
                model,
                self.input,
                self._input_shape(self.fixed_batch or 1),
                self.dtype,
                run,
                self.path.parent,
            )
        if mean is not None and std is not None:
            self.mean, self.std = _per_channel(mean, "mean"), _per_channel(std, "std")
            if (self.std == 0).any():
                raise ValueError("std must not be 0")
            how = "given"
        else:
            key, how = self._range(model, told)
            lowest, highest = RANGES[key]
            scale = 255 / (highest - lowest)
            self.mean, self.std = _per_channel(-lowest * scale), _per_channel(scale)
        self.bgr = channels == "bgr" if channels else bool(told.bgr)
        order_by = told.order_by or "assumed"
        self.inputs["values"] = f"{_formula(self.mean, self.std)}, {how}"
        self.inputs["channels"] = (
            f"{'BGR' if self.bgr else 'RGB'}, {'given' if channels else order_by}"
        )

    def _range(self, model: Any, told: Preprocessing) -> tuple[str, str]:
        """The range of the input, and how it is known."""
        if told.range:
            return told.range, told.range_by
        if self.dtype == np.uint8 or (self.dtype.kind in "iu" and self.dtype.itemsize > 1):
            return "0..255", "by the dtype"
        if self.dtype.kind != "f":
            raise ValueError(
                f"it takes {self.dtype}, and how a face becomes that is not said: give "
                "--input-mean and --input-std"
            )
        if not told.unclear:
            return "-1..1", "assumed, as InsightFace's package does"
        # What insightface/model_zoo/arcface_onnx.py goes by.
        names = [node.name for node in model.graph.node[:8]]
        found = [
            any(name.startswith(of) for name in names)
            for of in (("Sub", "_minus"), ("Mul", "_mul"))
        ]
        assumed = "0..255" if all(found) else "-1..1"
        warnings.warn(
            f"{self.path}: what the graph begins with does not tell the range of its input; "
            f"{assumed} is assumed, as InsightFace's package does: --input-mean and --input-std "
            "settle it",
            stacklevel=2,
        )
        return assumed, "assumed, as InsightFace's package does"

    def _read_output(self, wanted: str | None) -> None:
        """Which output the embedding is, and how many faces may be given at once."""
        outputs = [each for each in self.session.get_outputs() if each.type in _DTYPES]
        described = ", ".join(
            f"{each.name} {_shape(each.shape)}" for each in self.session.get_outputs()
        )
        if wanted is not None:
            outputs = [each for each in outputs if each.name == wanted]
            if not outputs:
                raise ValueError(f"it has no output {wanted!r}, but {described}")
        names = [each.name for each in outputs if each.type in _FLOATS or wanted]
        if not names:
            raise ValueError(f"it has no output of real numbers, but {described}")
        noise = np.random.default_rng(0).integers(0, 256, (2, 3, self.height, self.width))
        faces = self._prepared(noise.astype(np.float32))
        first = self.fixed_batch or 1
        alone = self._run(names, faces[np.arange(first) % 2])
        widths = {
            name: rows.shape[1]
            for name, output in zip(names, alone, strict=True)
            if (rows := _rows(output, first)) is not None and rows.shape[1] > 1
        }
        if not widths:
            raise ValueError(
                f"it has {described}; an output of (batch, D) numbers is wanted, D above 1"
            )
        likely = [name for name, width in widths.items() if width in _WIDTHS] or list(widths)
        self.output = likely[0]
        self.step = self.fixed_batch or self._step(faces, _rows(alone[names.index(self.output)], 1))
        how = "given" if wanted else "the only one" if len(outputs) == 1 else "by its shape"
        if not wanted and len(likely) > 1:
            how = f"assumed, and not {', '.join(likely[1:])}"
        self.inputs["output"] = f"{self.output}: {widths[self.output]} numbers, {how}"

    def _step(self, faces: NDArray, alone: NDArray | None) -> int | None:
        """How many faces to run at once: None for any number, 1 where two come out otherwise."""
        try:
            (together,) = self._run([self.output], faces)
        except ValueError:
            return 1
        rows = _rows(together, 2)
        if rows is None or alone is None or rows.shape[1] != alone.shape[1]:
            return 1
        first, again = alone[0].astype(np.float64), rows[0].astype(np.float64)
        return None if np.linalg.norm(first - again) <= 0.02 * np.linalg.norm(first) else 1

    def _prepared(self, batch: NDArray[np.float32]) -> NDArray:
        """Turn faces (B, 3, H, W), RGB in 0..255, into what the input takes."""
        if self.bgr:
            batch = batch[:, ::-1]
        if self.mean.any() or (self.std != 1).any():
            batch = (batch - self.mean) / self.std
        if self.layout == "NHWC":
            batch = batch.transpose(0, 2, 3, 1)
        if self.dtype.kind in "iu":
            batch = np.rint(batch)
            limits = np.iinfo(self.dtype)
            if batch.size and not limits.min <= batch.min() <= batch.max() <= limits.max:
                raise ValueError(
                    f"it takes {self.dtype}; with this mean and std faces are "
                    f"{batch.min():g} to {batch.max():g}"
                )
        return np.ascontiguousarray(batch, self.dtype)

    def _run(self, outputs: Sequence[str], faces: NDArray) -> list[NDArray]:
        try:
            return self.session.run(list(outputs), {self.input: faces})
        except Exception as error:  # onnxruntime has a class of its own for each kind
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"it cannot be run on {_shape(faces.shape)} {faces.dtype}: {reason}"
            ) from None

    def embed(self, faces: Iterable[Pixels]) -> NDArray[np.float32]:
        pixels = resized(faces, self.height, self.width)
        with reading(self.path):
            batch = self._prepared(pixels)
            step = self.step or len(batch)
            parts = [
                self._rows(batch[start : start + step], step)
                for start in range(0, len(batch), step)
            ]
        return np.concatenate(parts).astype(np.float32, copy=False)

    def _rows(self, faces: NDArray, step: int) -> NDArray:
        """Embed at most `step` faces, padded to that many: (B, D)."""
        missing = step - len(faces)
        padded = np.concatenate([faces, np.repeat(faces[-1:], missing, axis=0)])
        (embedded,) = self._run([self.output], padded)
        rows = _rows(embedded, step)
        if rows is None:
            raise ValueError(
                f"it answers {_shape(embedded.shape)} for {step} faces; (batch, D) is wanted"
            )
        return rows[: len(faces)]


def _session(onnxruntime: Any, model: str | bytes, providers: list[str] | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # Errors are raised, and said once.
    return onnxruntime.InferenceSession(
        model, options, providers=providers or onnxruntime.get_available_providers()
    )


def _layout(shape: Sequence[Any]) -> tuple[str, bool] | None:
    """NCHW or NHWC, and whether the shape tells; None where it takes no three channels."""
    if len(shape) != 4:
        return None
    first, last = (isinstance(shape[axis], int) and shape[axis] > 0 for axis in (1, 3))
    if shape[1] == 3:
        return "NCHW", True
    if shape[3] == 3:
        return "NHWC", True
    return None if first or last else ("NCHW", False)


def _rows(output: NDArray, batch: int) -> NDArray | None:
    """(batch, D) of (batch, D), (batch, D, 1, 1) and the like; None of anything else."""
    output = np.asarray(output)
    if batch == 1 and output.ndim == 1:
        output = output[None]
    if output.ndim < 1 or output.shape[0] != batch or output.size == 0:
        return None
    if sum(n > 1 for n in output.shape[1:]) > 1:
        return None
    return output.reshape(batch, -1)


def _per_channel(value: ArrayLike, name: str = "") -> NDArray[np.float32]:
    """(3, 1, 1) of a number or three."""
    array = np.asarray(value, np.float32).ravel()
    if array.size not in (1, 3) or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a finite number or three, got {value!r}")
    return np.broadcast_to(array.reshape(-1, 1, 1), (3, 1, 1))


def _formula(mean: NDArray, std: NDArray) -> str:
    def text(value: NDArray) -> str:
        numbers = [f"{number:g}" for number in value.ravel()]
        return numbers[0] if len(set(numbers)) == 1 else f"({', '.join(numbers)})"

    centred = f"(x - {text(mean)})" if mean.any() else "x"
    return f"{centred} / {text(std)}" if (std != 1).any() else centred


def _shape(shape: Sequence[Any]) -> str:
    return f"({', '.join('?' if n is None else str(n) for n in shape)})"


def _external_files(graph: Any, folder: Path) -> list[Path]:
    """The files that hold its tensors, beside it or below."""
    names = {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"it keeps weights in {name}, outside its folder")
    return [folder / name for name in sorted(names)]
