import os

from ftbench.records.messages import Progress, RankPosition
from ftbench.worker.launch.board import Board


def test_nothing_is_known_before_a_rank_has_written():
    board = Board(2)
    assert board.progress() is None
    assert set(vars(board.row(1)).values()) == {None}


def test_the_progress_is_that_of_rank_0_with_the_positions_of_all():
    board = Board(2)
    board.advance(0, Progress(phase="train", step=4, max_steps=9, epoch=0.5, loss=0.25))
    board.advance(1, Progress(phase="train", step=3, max_steps=9, epoch=0.4))
    board.count(1, 17)
    assert board.progress() == Progress(
        phase="train",
        step=4,
        max_steps=9,
        epoch=0.5,
        loss=0.25,
        ranks=(
            RankPosition(phase="train", step=4),
            RankPosition(phase="train", step=3, collectives=17),
        ),
    )


def test_a_phase_alone_leaves_the_step():
    board = Board(1)
    board.advance(0, Progress(phase="train", step=4, max_steps=9))
    board.advance(0, Progress(phase="save"))
    assert (board.row(0).phase, board.row(0).step) == ("save", 4)


def test_what_a_forked_process_writes_is_seen_here():
    board = Board(2)
    child = os.fork()
    if child == 0:
        board.begin(1, os.getpid())
        os._exit(0)
    os.waitpid(child, 0)
    assert board.row(1).pid == child
