"""Engines for tests: answers at once, with no process."""

from concurrent.futures import Future

from ftbench.execute.engines.base import Engine


class InstantEngine(Engine):
    """An engine whose `run` is a test's own: what it returns is an outcome that is there already."""

    def submit(self, work, on_progress):
        future = Future()
        options = {"log_file": work.log_file, "timeout_s": work.timeout_s}
        if work.memory_limit_bytes is not None:
            options["memory_limit_bytes"] = work.memory_limit_bytes
        try:
            future.set_result(
                self.run(work.module, work.request, on_progress=on_progress, **options)
            )
        except BaseException as error:
            future.set_exception(error)
        return future

    def cancel(self):
        """There is nothing to end."""
