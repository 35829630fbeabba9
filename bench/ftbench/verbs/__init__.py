"""Verbs: what the commands do, without a terminal. `import ftbench` offers them.

    ftbench.run("quick")                        # the missing cells; returns the results
    ftbench.open("results/quick").to_pandas()   # one row per run
    ftbench.predict("quick", gpu="l4")          # memory, without a GPU
    ftbench.estimate("quick", gpu=["l4", "h100-sxm"])
    ftbench.gate("memory").raise_if_failed()

The command line parses texts, calls these, and shows what they return.
"""
