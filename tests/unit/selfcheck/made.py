"""A machine, and rows of processes that do as their name says (`row_process.py`)."""

from ftbench.records.selfcheck import Machine, SelfcheckCard
from ftbench.selfcheck.rows import Row


def card(name="NVIDIA L4", capability=(8, 9), multiprocessors=58):
    return SelfcheckCard(
        name=name,
        uuid=f"GPU-{name}",
        compute_capability=capability,
        multiprocessors=multiprocessors,
        total_memory_bytes=16 << 30,
    )


def machine(cards=1, **versions):
    return Machine(cards=(card(),) * cards, cuda="12.8", driver="580.00", versions=versions)


def row(name, limit_s=30.0, least_s=0.0, **fields):
    return Row(name, f"a row that {name}", "cell", limit_s=limit_s, least_s=least_s, **fields)
