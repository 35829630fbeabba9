"""A calibration whose laws are planted."""

from ftbench.records.calibration import (
    AttentionTiming,
    CalibratedDevice,
    Calibration,
    HostTiming,
    MemoryTiming,
    ProductTiming,
)

PEAK, BANDWIDTH, START_S = 1e12, 1e11, 1e-6
PASSES_S, UPDATE_S = 5e-6, 2e-6
SIZES = [4**n for n in range(5, 13)]


def product_law(b, m, n, k):
    """The planted time of a product: less of the peak, the narrower it is."""
    share = 0.9 * min(m, n, k) / (min(m, n, k) + 40)
    return START_S + 2 * b * m * n * k / (PEAK * share)


def memory_law(nbytes):
    """The planted time of a kernel that moves bytes."""
    return START_S + nbytes / BANDWIDTH


def calibration(kind="cpu", **changes):
    """A device with the planted laws."""
    shapes = [
        (1, m, n, k) for m in (64, 512, 4096) for n in (64, 512, 4096) for k in (64, 512, 4096)
    ]
    planted = Calibration(
        device=CalibratedDevice(kind=kind, name="NVIDIA L4", threads=2, torch="2.13.0"),
        products=tuple(
            ProductTiming(batch=b, m=m, n=n, k=k, dtype="float32", seconds=product_law(b, m, n, k))
            for b, m, n, k in shapes
        ),
        memory=tuple(
            MemoryTiming(kind="elementwise", update=update, nbytes=size, seconds=memory_law(size))
            for size in SIZES
            for update in (False, True)
        ),
        attention=(
            AttentionTiming(dtype="float32", length=128, backward=False, flops=10**9, seconds=2e-3),
            AttentionTiming(dtype="float32", length=512, backward=False, flops=10**10, seconds=1e-2),
        ),
        host=HostTiming(passes_s=PASSES_S, update_s=UPDATE_S),
        seconds=1.0,
    )  # fmt: skip
    return planted.model_copy(update=changes)
