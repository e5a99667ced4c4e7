"""How good what a model makes is: helpers for a workload's `measure` (`headrace.measuring.own`).

Images are compared by their features: what a network that knows images says of them. Whose features they are decides
what a distance means, so each workload names its network beside the number; with Inception's they would be FID and KID.

```python
def measure(trial: Trial) -> Own:
    faces, seen = trial.first(1_000)["image"], trial.first(5_000, "train")["image"]
    look = standardised(looking("squeezenet"), seen)              # or a network of one's own: `features`
    made = as_bytes(trial.models["model"].predict(noise(len(faces), trial.seed), verbose=0))
    real, fake, known = (look(images) for images in (faces, made, seen))
    return Own({"squeezenet_distance": kernel_distances(real, fake), "diversity": diversity(fake),
                "novelty": nearest(fake, known)},
               larger_is_better={"novelty", "diversity"})
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from headrace.errors import StageFailed
from headrace.measuring.resampling import Array

if TYPE_CHECKING:
    import keras

_BYTES = 64 * 2**20
"""How much distances between many examples take at once."""

DRAWN = "drawn"
"""Name of the network that has learned nothing."""

Look = Callable[[Array], Array]
"""Images (examples, height, width, 1 or 3), uint8 → features (examples, size), float64."""


# ---------------------------------------------------------------------------------------- whose features


def looking(name: str = DRAWN) -> Look:
    """How images are looked at, by the name of a network; the name belongs to every number that is made of it.

    Args:
        name: One of `headrace.engine.backbones.CATALOGUE`, with what it has learned of ImageNet's photographs; or
            `drawn`, three convolutions whose weights are always the same random numbers: it needs no file, tells
            brightness, edges and where they are, and knows nothing of what photographs show.

    Raises:
        ConfigError: There is no such network.
        Unavailable: Its weights are neither in the cache nor in the mirror, and can't be fetched.
    """
    if name == DRAWN:
        return _by_chance()
    from headrace.engine.backbones import backbone, prepared

    network = backbone(name, (None, None, 3), weights="imagenet", pooling="avg")

    def seen(images: Array) -> Array:
        import tensorflow as tf

        # Such networks were trained on larger pictures: of small ones their last maps would be a point or two.
        size = [max(side, LEAST_SIDE) for side in images.shape[1:3]]
        coloured = np.broadcast_to(images, (*images.shape[:3], 3)).astype(np.float32)
        large = tf.image.resize(coloured, size).numpy()
        return np.asarray(network(np.array(prepared(name, large)), training=False), np.float64)

    return lambda images: _in_parts(seen, images)


LEAST_SIDE = 128
"""Pixels to which smaller images are enlarged before a network of photographs looks at them."""


def _by_chance() -> Look:
    random = np.random.default_rng(0)
    kernels = []
    for side, given, filters in ((5, 3, 16), (3, 16, 32), (3, 32, 64)):
        kernel = random.normal(0, np.sqrt(2 / (side * side * given)), (side, side, given, filters))
        # Every other filter is blind to brightness, and sees edges and textures all the better.
        kernel[..., ::2] -= kernel[..., ::2].mean(axis=(0, 1), keepdims=True)
        kernels.append(kernel.astype(np.float32))

    def seen(images: Array) -> Array:
        import tensorflow as tf

        x = np.broadcast_to(images, (*images.shape[:3], 3)).astype(np.float32) / 127.5 - 1
        found = []
        for kernel in kernels:
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, strides=2, padding="SAME"))
            # Where in the image counts as well: the four quarters of a map are kept apart.
            found.append(np.asarray(tf.image.resize(x, (2, 2), method="area"), np.float64).reshape(len(images), -1))
        return np.concatenate(found, axis=1)

    return lambda images: _in_parts(seen, images)


def standardised(look: Look, images: Array) -> Look:
    """The same features, each brought to mean 0 and deviation 1 over some images, those of the training split.

    The kernel of `kernel_distances` is nearly a comparison of means where features are small: scaled, it sees how they
    vary, too, whatever network they come from.
    """
    found = look(images)
    mean, deviation = found.mean(axis=0), found.std(axis=0)
    # What hardly ever varies among real images must not outweigh all the rest where it does.
    deviation = np.maximum(deviation, deviation.mean() / 10 or 1.0)
    return lambda others: (look(others) - mean) / deviation


def _in_parts(look: Look, images: Array, batch: int = 64) -> Array:
    return np.concatenate([look(images[first : first + batch]) for first in range(0, len(images), batch)])


def features(network: keras.Model, images: Array, batch: int = 64) -> Array:
    """What a network says of images, some at a time.

    Args:
        network: Images → features (examples, …); what is more than a vector is averaged over all but its last axis.
        images: (examples, *shape), as the network takes them.
        batch: Examples that are asked at once.

    Returns:
        (examples, size), float64.
    """
    parts = []
    for first in range(0, len(images), batch):
        found = np.asarray(network(images[first : first + batch], training=False), np.float64)
        parts.append(found.reshape(len(found), -1, found.shape[-1]).mean(axis=1))
    return np.concatenate(parts)


# ---------------------------------------------------------------------------------------- distances of two sets


def frechet_distance(real: Array, made: Array) -> float:
    """The Fréchet distance of two normal distributions that are fitted to features; with Inception's, FID.

    It is biased: of fewer examples it is larger, so that only sets of one size can be compared. With fewer examples
    than features the covariances are not of full rank, which does not harm the number.

    Args:
        real: (examples, size)
        made: (examples, size)
    """
    (one, a), (other, b) = (_moments(values) for values in (real, made))
    # The trace of the root of the product is the sum of the singular values of the product of roots.
    joint = np.linalg.svd(_root(a) @ _root(b), compute_uv=False).sum()
    return float(max(np.square(one - other).sum() + np.trace(a) + np.trace(b) - 2 * joint, 0.0))


def _moments(values: Array) -> tuple[Array, Array]:
    exact = _checked(values)
    return exact.mean(axis=0), np.atleast_2d(np.cov(exact, rowvar=False))


def _root(covariance: Array) -> Array:
    """The symmetric root of a covariance."""
    sizes, axes = np.linalg.eigh(covariance)
    return np.asarray((axes * np.sqrt(np.clip(sizes, 0, None))) @ axes.T)


def kernel_distances(real: Array, made: Array, block: int = 50, seed: int = 0) -> Array:
    """Unbiased estimates of the squared kernel distance of two sets of features; with Inception's, their mean is KID.

    The kernel is (x·y / size + 1)³. Each estimate is of a block of either set; no example is in two of them, so that
    the estimates are independent of each other, and their mean has an honest interval.

    Args:
        real: (examples, size)
        made: (examples, size)
        block: Examples of each set in one estimate; at most half of the smaller set.
        seed: Of the order in which the blocks are cut.

    Returns:
        (blocks,), at least two; some are negative where the sets are alike.
    """
    ours, theirs = _checked(made), _checked(real)
    fewest = min(len(ours), len(theirs))
    block = max(min(block, fewest // 2), 2)
    random = np.random.default_rng(seed)
    x, y = (values[random.permutation(len(values))] for values in (ours, theirs))
    starts = range(0, fewest - block + 1, block)
    return np.array([kernel_distance(y[first : first + block], x[first : first + block]) for first in starts])


def kernel_distance(real: Array, made: Array) -> float:
    """The unbiased estimate of the squared kernel distance of two whole sets: see `kernel_distances`."""
    x, y = _checked(made), _checked(real)
    within = sum((_kernel(z, z).sum() - _kernel_of_itself(z).sum()) / (len(z) * (len(z) - 1)) for z in (x, y))
    return float(within - 2 * _kernel(x, y).mean())


def _kernel(x: Array, y: Array) -> Array:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def _kernel_of_itself(x: Array) -> Array:
    return np.asarray((np.square(x).sum(axis=1) / x.shape[1] + 1) ** 3)


# ---------------------------------------------------------------------------------------- diversity and memory


def diversity(made: Array, seed: int = 0) -> Array:
    """How different examples are: the distances of pairs that are drawn, each example in one pair (examples // 2,).

    To be compared with the same of real examples: much less is a collapse of modes.
    """
    values = _checked(made)
    drawn = values[np.random.default_rng(seed).permutation(len(values))]
    half = len(values) // 2
    return np.asarray(np.linalg.norm(drawn[:half] - drawn[half : 2 * half], axis=1))


def modes(made: Array, centres: Array) -> int:
    """How many of the real kinds occur: centres that are the nearest of at least one example.

    Args:
        made: Features (examples, size).
        centres: Features of each kind (kinds, size): class means, or the centres that k-means finds in real examples.
    """
    return len(np.unique(nearest_places(_checked(made), centres)))


def coverage(made: Array, real: Array, kinds: int = 20, seed: int = 0) -> float:
    """The share of the kinds of real examples, found by k-means, that occur among what was made.

    A kind occurs if at least a tenth of the share that it has among the real examples is there.
    """
    from sklearn.cluster import KMeans

    values = _checked(real)
    found = KMeans(kinds, n_init=3, random_state=seed).fit(values)
    shares = [
        np.bincount(places, minlength=kinds) / len(places)
        for places in (found.labels_, nearest_places(_checked(made), found.cluster_centers_))
    ]
    return float((shares[1] >= 0.1 * shares[0]).mean())


def nearest(made: Array, known: Array) -> Array:
    """Distance of each example to the nearest one of the training split (examples,): 0 is a copy of it.

    To be compared with the same of held-out examples: much less is memory.
    """
    values, others = _checked(made), np.asarray(known, np.float64)
    return np.asarray(np.linalg.norm(values - others[nearest_places(values, others)], axis=1))


def nearest_places(values: Array, others: Array) -> Array:
    """Which of the others is nearest to each of the values, some values at a time."""
    # By matrix products, which are ten times faster than distances; around the middle they lose no digits that matter.
    middle = others.mean(axis=0)
    away = others - middle
    half = np.square(away).sum(axis=1) / 2
    at_once = max(1, _BYTES // (8 * len(others)))
    starts = range(0, len(values), at_once)
    return np.concatenate([(half - (values[i : i + at_once] - middle) @ away.T).argmin(axis=1) for i in starts])


def bins_covered(made: Array, real: Array, bins: int = 5) -> Array:
    """The share of the range of each known factor that occurs among what was made (factors,).

    The values of a factor that real examples take are cut into bins of equally many of them. A bin occurs if at least
    a tenth of the share that it has among real examples is there; values outside of the real range are in no bin.

    Args:
        made: Factors as they are measured in what was made (examples, factors).
        real: The same, measured in real examples in the same way.
        bins: How many.
    """
    theirs, ours = _checked(real), _checked(made)
    found = []
    for one, other in zip(theirs.T, ours.T, strict=True):
        edges = np.unique(np.quantile(one, np.linspace(0, 1, bins + 1)))
        shares = [np.histogram(values, edges)[0] / len(values) for values in (one, other)]
        found.append((shares[1] >= 0.1 * shares[0]).mean())
    return np.array(found)


# ---------------------------------------------------------------------------------------- balance of two networks

BAND = {"discriminator": (0.1, 1.0), "generator": (0.3, 4.0)}
"""Losses (cross-entropies) of two networks that still learn from each other. Of one that can't tell real from made they
are 0.69; a generator's loss of 4 means that one in fifty of its images is taken for real."""


def balanced(generator: Sequence[float], discriminator: Sequence[float]) -> Array:
    """Whether both losses lie within the healthy band, epoch by epoch (epochs,)."""
    inside = [
        (np.asarray(losses) >= low) & (np.asarray(losses) <= high)
        for losses, (low, high) in zip((discriminator, generator), BAND.values(), strict=True)
    ]
    return np.asarray(inside[0] & inside[1])


def alarm(generator: Sequence[float], discriminator: Sequence[float], window: int = 5) -> str | None:
    """What is wrong if the discriminator wins for good: its loss goes to zero while the generator's climbs.

    Args:
        generator: Its loss in each epoch.
        discriminator: The same of its opponent.
        window: Epochs at the end whose means are looked at, and compared with as many before them.

    Returns:
        The figures in a sentence, or None if all is well.
    """
    before = generator[:-window][-window:]
    missed, lost = (float(np.mean(losses[-window:])) for losses in (generator, discriminator))
    climbs = not before or missed > np.mean(before)
    if lost >= BAND["discriminator"][0] or missed <= BAND["generator"][1] or not climbs:
        return None
    return (
        f"The discriminator wins: its loss is {lost:.2g}, and that of the generator has climbed to {missed:.2g}. "
        "The generator learns nothing from an opponent that is never in doubt."
    )


# ---------------------------------------------------------------------------------------- pictures


def as_bytes(images: Array) -> Array:
    """Images from 0 to 1 as uint8 from 0 to 255; those that are uint8 as they are."""
    if images.dtype == np.uint8:
        return images
    return np.asarray((np.clip(images, 0, 1) * 255).round().astype(np.uint8))


def sheet(images: Array, columns: int) -> Array:
    """Images of one size side by side, row by row; a last row that is not full ends in black.

    Args:
        images: (examples, height, width, channels), uint8 or from 0 to 1.
        columns: Images of a row.

    Returns:
        (rows · height, columns · width, channels), uint8.
    """
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    whole = np.zeros((rows * columns, height, width, channels), np.uint8)
    whole[:count] = as_bytes(np.asarray(images))
    laid = whole.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return np.asarray(laid.reshape(rows * height, columns * width, channels))


def tiles(picture: Array, height: int, width: int) -> Array:
    """The images of a `sheet` again (rows · columns, height, width, channels); a grey picture has one channel."""
    pixels = picture[..., None] if picture.ndim == 2 else picture
    rows, columns = pixels.shape[0] // height, pixels.shape[1] // width
    cut = pixels.reshape(rows, height, columns, width, -1).transpose(0, 2, 1, 3, 4)
    return np.asarray(cut.reshape(rows * columns, height, width, -1))


def animation(frames: Sequence[Array], milliseconds: int = 250, last: int = 2_000) -> bytes:
    """A GIF that is played for ever.

    Args:
        frames: Pictures of one size (height, width[, channels]), uint8.
        milliseconds: How long each is shown.
        last: How long the last one is.
    """
    import io

    from PIL import Image

    pictures = [Image.fromarray(frame[..., 0] if frame.shape[2:] == (1,) else frame) for frame in frames]
    shown = [milliseconds] * (len(pictures) - 1) + [last]
    if pictures[0].mode != "L":
        # One choice of colours for all frames: else they flicker.
        colours = Image.fromarray(np.concatenate(frames)).quantize(255)
        pictures = [picture.quantize(palette=colours) for picture in pictures]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "gif", save_all=True, append_images=pictures[1:], duration=shown, loop=0)
    return buffer.getvalue()


def scatter(points: Array, classes: Array, most: int = 5_000) -> Array:
    """Points of a plane in the colours of their classes, as a picture.

    Args:
        points: (examples, 2)
        classes: Number or name of the class of each (examples,).
        most: Points that are drawn, the first ones.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.4), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = np.unique(classes)
    colours = mpl.colormaps["tab10" if len(names) <= 10 else "turbo"].resampled(max(len(names), 10))
    for place, name in enumerate(names):
        here = points[:most][classes[:most] == name]
        axes.plot(here[:, 0], here[:, 1], ".", markersize=3, alpha=0.6, color=colours(place), label=str(name))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=4, frameon=False)
    axes.set(xlabel="first dimension", ylabel="second dimension")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


# ---------------------------------------------------------------------------------------- latent spaces, control


def nearest_labels(asked: Array, known: Array, labels: Array, neighbours: int = 1) -> Array:
    """The label that most of the nearest known points have, for each of others (examples,).

    Args:
        asked: (examples, dimensions), of few dimensions.
        known: (others, dimensions)
        labels: Of the known points (others,), from 0 on.
        neighbours: How many known points are asked. Where classes overlap, a single one is little more than a draw.
            Of labels that as many of them have, the smallest one is taken.
    """
    from scipy.spatial import KDTree

    ranks = range(1, min(neighbours, len(known)) + 1)
    places = KDTree(_checked(known)).query(_checked(asked), k=ranks)[1]
    votes = np.eye(int(labels.max()) + 1, dtype=np.int64)[labels[places]].sum(axis=1)
    return np.asarray(votes.argmax(axis=1))


def reconstruction(images: Array, again: Array) -> Array:
    """Cross-entropy of each image with what an autoencoder makes of it, summed over pixels, in nats (examples,).

    Args:
        images: (examples, *shape), from 0 to 1.
        again: (examples, *shape): probabilities.
    """
    rows = (len(images), -1)
    truth, given = images.reshape(rows).astype(np.float64), again.reshape(rows).astype(np.float64)
    # As Keras has it in its losses.
    given = np.clip(given, 1e-7, 1 - 1e-7)
    return np.asarray(-(truth * np.log(given) + (1 - truth) * np.log1p(-given)).sum(axis=1))


def divergence(mean: Array, log_variance: Array, reduce: str = "sum") -> Array:
    """Kullback–Leibler divergence of each latent normal distribution from the standard one, in nats (examples,).

    Args:
        mean: (examples, size)
        log_variance: (examples, size)
        reduce: `sum` over the latent dimensions, which is the divergence; `mean`, which some books print instead.
    """
    each = -0.5 * (1 + log_variance - np.square(mean) - np.exp(log_variance))
    return np.asarray(each.sum(axis=1) if reduce == "sum" else each.mean(axis=1), np.float64)


def episodes(returns: Array, solved: float) -> Mapping[str, Array]:
    """What is said of played episodes, as metrics of `Own`.

    Args:
        returns: Sum of the rewards of each episode (episodes,).
        solved: The return from which on an episode counts as solved.

    Returns:
        `return`, and `solved`: the share of solved episodes.
    """
    exact = np.asarray(returns, np.float64)
    return {"return": exact, "solved": (exact >= solved).astype(np.float64)}


def _checked(values: Array) -> Array:
    exact = np.asarray(values, np.float64)
    if exact.ndim != 2 or len(exact) < 2 or not np.isfinite(exact).all():
        raise StageFailed(
            "Features of examples can't be compared.",
            expected="at least two vectors of finite numbers (examples, size)",
            received=f"shape {exact.shape}, {(~np.isfinite(exact)).sum()} numbers not finite",
        )
    return exact
