"""The allocations of a planted trace: their bytes, their ends and their origins, with the workspaces of kernels."""

from ftbench.prediction.breakdown.allocations import predicted_allocations
from ftbench.prediction.simulate.simulation import simulate
from ftbench.prediction.simulate.workspaces.allocator_steps import Runtime
from ftbench.prediction.simulate.workspaces.cublas import cublas_workspace_bytes
from ftbench.prediction.trace.events import (
    FORWARD,
    SETUP,
    Kernel,
    Origin,
    Site,
    Trace,
    TraceBuilder,
)
from ftbench.records.predicted_allocations import WORKSPACES
from ftbench.snapshot.expected import expected_of


def _trace() -> Trace:
    """Return a weight, a product that is freed after one allocation more, and a tensor without data."""
    builder = TraceBuilder()
    weight = builder.allocate(4000, Site(SETUP, 0, "layer.0", "aten::empty"))
    builder.roles[weight], builder.owners[weight] = "parameters", "layer.0"
    builder.origins[weight] = Origin("float32", "model.py:3")
    builder.allocate(0, Site(SETUP, 0, "", "aten::empty"))
    site = Site(FORWARD, 1, "layer.1", "aten::mm")
    with builder.kernel(Kernel("aten::mm", (8, 8, 8, 0, 0), (0, 4), autograd=False), site):
        product = builder.allocate(256, site, stream=2)
    builder.allocate(512, Site(FORWARD, 1, "layer.1", "aten::relu"))
    builder.free(product, 256, Site(FORWARD, 1, "layer.1", ""))
    return builder.build()


def test_tensors_are_in_order_with_their_origins() -> None:
    found = predicted_allocations(_trace(), None)
    assert found.nbytes == (4000, 256, 512)
    assert found.streams == (0, 2, 0)
    assert found.ended == (-1, 3, -1)
    weight, product, _ = (found.part(row) for row in range(3))
    assert (weight.phase, weight.role, weight.module) == ("setup", "parameters", "layer.*")
    assert weight.source == "model.py:3"
    assert (product.step, product.operator, product.source) == (1, "aten::mm", "")


def test_a_card_adds_the_workspaces_of_kernels() -> None:
    runtime = Runtime()
    found = predicted_allocations(_trace(), runtime)
    workspace = cublas_workspace_bytes(runtime.compute_capability)
    assert found.nbytes == (4000, 256, workspace, 512)
    part = found.part(2)
    assert (part.role, part.module, part.operator) == (WORKSPACES, "layer.*", "aten::mm")
    assert found.ended == (-1, 4, -1, -1)


def test_the_peak_of_what_is_live_is_the_simulations() -> None:
    for runtime in (None, Runtime()):
        found = predicted_allocations(_trace(), runtime)
        (expected,) = expected_of(found, found.nbytes, whole=True)
        played = simulate(_trace(), runtime=runtime, workspaces=runtime is not None)
        assert expected.requested.max() == played.peak_requested_bytes
