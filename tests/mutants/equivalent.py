"""Mutants that no test can kill, and why: they are not counted."""

WHOLE = "the division leaves no rest"
LARGER = "an array that is larger than it must be, or of floats that are cast back"

# (file below bench/ftbench, line as it is, line as it is mutated): reason.
EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "prediction/shapes/fit.py",
        "born = np.zeros(int(self.template.block.max(initial=0)) + 1, dtype=np.int64)",
        after,
    ): LARGER
    for after in (
        "born = np.zeros(int(self.template.block.max(initial=0)) + 1, dtype=None)",
        "born = np.zeros(int(self.template.block.max(initial=0)) + 1, )",
        "born = np.zeros(int(self.template.block.max(initial=1)) + 1, dtype=np.int64)",
        "born = np.zeros(int(self.template.block.max(initial=0)) + 2, dtype=np.int64)",
    )
} | {
    (
        "prediction/shapes/fit.py",
        "left[rows] = False",
        "left[rows] = None",
    ): "a None in an array of bools is False",
    (
        "prediction/shapes/shapes.py",
        "apart = {length for _, length in odd if every_batch and not shape_tracer.regular((2, length))}",
        "apart = {length for _, length in odd if every_batch and not shape_tracer.regular((3, length))}",
    ): "every batch above 1 is as regular",
    (
        "prediction/simulate/allocator.py",
        "if self.allocated > self.peak_allocated:",
        "if self.allocated >= self.peak_allocated:",
    ): "the peak is set to what it is",
    (
        "prediction/simulate/cards.py",
        'major, minor, *_ = version("torch").split(".")',
        'major, minor, *_ = version("TORCH").split(".")',
    ): "names of distributions are compared without case",
    (
        "prediction/simulate/workspaces/reductions.py",
        "if columns < 2 or rows < 2 or rows * columns * element_bytes > 2**31 - 1:",
        "if columns < 2 or rows < 2 or rows * columns * element_bytes > 2**31 - 2:",
    ): "elements have an even number of bytes",
    (
        "prediction/simulate/workspaces/reductions.py",
        "grid = ceil_div(columns // vector, width)",
        "grid = ceil_div(columns / vector, width)",
    ): WHOLE,
    (
        "prediction/simulate/workspaces/reductions.py",
        "return min(across, threads // height), height",
        "return min(across, threads / height), height",
    ): WHOLE,
    (
        "prediction/simulate/workspaces/reductions.py",
        "narrow = width // 32 < runtime.multiprocessors // 2",
        "narrow = width / 32 < runtime.multiprocessors // 2",
    ): "the other side is a whole number",
    (
        "prediction/simulate/workspaces/attention_backward.py",
        "size = round_up(head_size, 32 if head_size <= 128 else 64)",
        "size = round_up(head_size, 32 if head_size < 128 else 64)",
    ): "128 is a multiple of both",
}
