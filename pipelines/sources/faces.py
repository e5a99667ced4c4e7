"""Faces without labels, for models that draw new ones: CelebA, Olivetti, and the faces of Caltech 101."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Feature, File, Source

if TYPE_CHECKING:
    import pyarrow as pa

CELEBA_NAME, OLIVETTI_NAME, CALTECH_NAME = "img_align_celeba.zip", "olivettifaces.mat", "Faces_easy.tar.gz"
TFDS_NAME = "celeb_a:2.1.0"
FEATURES = {
    "image": Feature(dtype="string", content="image"),
    "file": Feature(dtype="string", role="note"),
}
SHARES = {"test": 0.1}
"""What new faces are compared with, and no model sees."""
NOTE = (
    "Photographs of people who were not asked. Faces drawn by a model trained on them can resemble them; don't use it "
    "to make pictures of real people."
)


def read_celeba(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The 202,599 faces, cut out and aligned: nine tenths to train, a tenth to test."""
    from headrace.readers.folders import files_by_name

    return files_by_name(raw / CELEBA_NAME, FEATURES, {"image": "img_align_celeba/*.jpg"}, shares=SHARES)


def read_prepared(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The 202,599 faces in the authors' splits: theirs to train and to validate are ours to train."""
    from headrace.readers.tfds_reading import read_tfds

    return read_tfds(raw, CELEB_A.features, splits={"train": "train+validation", "test": "test"})


def read_caltech(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The 435 photographs: nine tenths to train, a tenth to test."""
    from headrace.readers.folders import files_by_name

    return files_by_name(
        raw / CALTECH_NAME, FEATURES, {"image": "101_ObjectCategories/Faces_easy/*.jpg"}, shares=SHARES
    )


def read_olivetti(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The 400 faces of 40 people, 360 to train and 40 to test; the same people in both.

    Raises:
        DataError: The file is missing, damaged, or holds no faces.
    """
    import numpy as np
    from scipy.io import loadmat

    from headrace.errors import DataError
    from headrace.readers.batches import batches
    from headrace.readers.splits import split_arrays

    try:
        faces = loadmat(raw / OLIVETTI_NAME)["faces"]
        # A column for each face, and in it the columns of the image one after the other.
        images = faces.T.reshape(-1, 64, 64).transpose(0, 2, 1)[..., None]
    except Exception as error:
        # A damaged file has no error of its own: the parser raises what its numbers lead it to.
        raise DataError(
            f"{OLIVETTI_NAME} can't be read.",
            expected="an array `faces` of 4,096 pixels for each of the faces",
            received=f"{type(error).__name__}: {error}",
            remedy=f"put a sound {OLIVETTI_NAME} where this one came from, and run again",
        ) from error
    people = np.arange(len(images)) // 10
    return {
        split: batches(some)
        for split, some in split_arrays({"image": np.ascontiguousarray(images), "person": people}, SHARES).items()
    }


def twin_celeba(raw: Path, seed: int) -> None:
    """200 drawn faces of 178 × 218 pixels, in colour; `_faces.FACTORS` says in what they differ."""
    from pipelines.sources._packing import zipped

    faces = enumerate(_aligned(seed), 1)
    zipped(raw / CELEBA_NAME, {f"img_align_celeba/{k:06}.jpg": face for k, face in faces})


def twin_prepared(raw: Path, seed: int) -> None:
    """The faces of `twin_celeba`, a tenth of them to test; of looks, landmarks and names nothing is said."""
    import io

    import tensorflow_datasets as tfds

    from pipelines.sources._packing import prepared

    fields = tfds.builder(TFDS_NAME, data_dir=raw).info.features
    nothing = {name: dict.fromkeys(fields[name], 0) for name in ("attributes", "identity", "landmarks")}
    faces = [{**nothing, "image": io.BytesIO(face)} for face in _aligned(seed)]
    prepared(raw, TFDS_NAME, {"train": faces[:160], "validation": faces[160:180], "test": faces[180:]})


def _aligned(seed: int) -> Iterator[bytes]:
    """200 faces as those of CelebA are cut out, as JPEG."""
    import numpy as np

    from pipelines.sources import _drawing, _faces

    drawn = _faces.factors(np.random.default_rng(seed), 200)
    return (_drawing.encoded(_faces.face(looks, (178, 218))) for looks in drawn)


def twin_caltech(raw: Path, seed: int) -> None:
    """100 drawn faces of different sizes, in colour."""
    import numpy as np

    from pipelines.sources import _drawing, _faces
    from pipelines.sources._packing import tarred

    random = np.random.default_rng(seed)
    files = {}
    for k, looks in enumerate(_faces.factors(random, 100), 1):
        width, height = (int(side) for side in random.integers(240, 300, 2))
        name = f"101_ObjectCategories/Faces_easy/image_{k:04}.jpg"
        files[name] = _drawing.encoded(_faces.face(looks, (width, height)))
    tarred(raw / CALTECH_NAME, files)


def twin_olivetti(raw: Path, seed: int) -> None:
    """400 drawn faces of 64 × 64 pixels, in grey."""
    import io

    import numpy as np
    from scipy.io import savemat

    from pipelines.sources import _faces

    looks = _faces.factors(np.random.default_rng(seed), 400)
    images = np.stack([np.asarray(_faces.face(one, grey=True)) for one in looks])
    file = io.BytesIO()
    savemat(file, {"faces": images.transpose(0, 2, 1).reshape(400, -1).T}, do_compression=True)
    # The header says when and on what it was written, which equal faces need not differ in.
    header = b"MATLAB 5.0 MAT-file, made up".ljust(116)
    (raw / OLIVETTI_NAME).write_bytes(header + file.getvalue()[116:])


CELEBA = Source(
    title="CelebA, 202,599 aligned faces of celebrities (Liu, Luo, Wang and Tang, 2015)",
    features=FEATURES,
    read=read_celeba,
    twin=twin_celeba,
    files=(
        File(
            url=f"gdrive://0B7EVK8r0v71pZjFTYXZWM3FlRnM/{CELEBA_NAME}",
            sha256="46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
            size=1_443_490_838,
            hint="Google Drive allows a file only so many downloads a day: try again tomorrow, or get it from the page "
            "of the authors, https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        ),
    ),
    examples={"train": 182_339, "test": 20_260},
    quarantine=0.01,
    licence="non-commercial research only, no redistribution",
    homepage="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    note=NOTE,
)
CELEB_A = Source(
    title="CelebA, 202,599 aligned faces of celebrities, as TensorFlow Datasets prepares them",
    features={"image": FEATURES["image"]},
    read=read_prepared,
    twin=twin_prepared,
    tfds=TFDS_NAME,
    examples={"train": 182_637, "test": 19_962},
    stands_for="celeba",
    quarantine=0.01,
    licence=CELEBA.licence,
    homepage=CELEBA.homepage,
    note=NOTE,
)
OLIVETTI = Source(
    title="Olivetti faces, 400 of 40 people, grey, 64 × 64 pixels (AT&T Laboratories Cambridge, 1994)",
    features={
        "image": Feature(shape=(64, 64, 1), dtype="uint8", unit="brightness, 0 to 255"),
        "person": Feature(dtype="int64", role="note", content="category", description="0 to 39"),
    },
    read=read_olivetti,
    twin=twin_olivetti,
    files=(File(url=f"https://cs.nyu.edu/~roweis/data/{OLIVETTI_NAME}"),),
    examples={"train": 360, "test": 40},
    licence="none stated; AT&T Laboratories Cambridge ask for credit",
    homepage="https://cam-orl.co.uk/facedatabase.html",
    note=NOTE,
)
CALTECH = Source(
    title="Caltech faces, 435 photographs of 450 (Fei-Fei, Fergus and Perona, 2004)",
    features=FEATURES,
    read=read_caltech,
    twin=twin_caltech,
    files=(
        File(
            url=f"manual:{CALTECH_NAME}",
            hint="get caltech-101.zip from https://data.caltech.edu/records/mzrjq-6wc02, unpack the archive "
            "101_ObjectCategories.tar.gz in it, and pack its folder 101_ObjectCategories/Faces_easy again",
        ),
    ),
    examples={"train": 391, "test": 44},
    quarantine=0.01,
    licence="CC BY 4.0",
    homepage="https://data.caltech.edu/records/mzrjq-6wc02",
    note=NOTE,
)
