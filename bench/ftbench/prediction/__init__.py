"""GPU memory of a training step, predicted on a machine without a GPU.

    from ftbench.prediction.trace.tracer import trace
    from ftbench.prediction.trace.trace_trainer import trace_trainer
    from ftbench.prediction.simulate.simulation import simulate
    from ftbench.prediction.shapes.fit import fit_events

    traced = trace(factory)                   # the allocations of any module's training steps
    traced = trace_trainer(cell)              # those of a cell's own Trainer
    peaks = simulate(traced, AllocatorSettings(capacity_bytes=...))
    fitted = fit_events({(batch, length): traced, ...})
    fitted.peak_bytes(16, 512)                # any other shape, to the byte

`ftbench.prediction.predict_cells.predict` does all of this for the cells of a grid, on cards of the catalogue.
"""
