import multiprocessing
import os
import signal
import time

import pytest

pytest.importorskip("torch", reason="execution needs torch")

from shardwise.validate.execute.ranks import Progress, RankFailedError, start_together


def _breaks(rank: int) -> int:
    if rank == 2:
        raise ValueError("no such tensor")
    time.sleep(60)
    return rank


def test_every_rank_gives_its_own_answer() -> None:
    assert start_together(3, 30.0, lambda rank: rank * rank) == [0, 1, 4]


def test_the_error_of_a_rank_is_told_once_and_ends_the_others() -> None:
    with pytest.raises(RankFailedError, match="rank 2 of 4: ValueError: no such tensor"):
        start_together(4, 30.0, _breaks)


def test_a_rank_that_dies_without_a_word_is_named() -> None:
    with pytest.raises(RankFailedError, match=r"rank 1 of 2: died without a word \(exit code 9\)"):
        start_together(2, 30.0, lambda rank: os._exit(9) if rank else time.sleep(60))
    with pytest.raises(RankFailedError, match=r"rank 0 of 2: died without a word \(SIGKILL, perhaps out of memory\)"):
        start_together(2, 30.0, lambda rank: time.sleep(60) if rank else os.kill(os.getpid(), signal.SIGKILL))


def test_ranks_that_hang_are_ended_at_the_limit_and_leave_no_process() -> None:
    with pytest.raises(RankFailedError, match=r"rank 0, 1 not done after 0\.2 s"):
        start_together(2, 0.2, lambda _rank: time.sleep(60))
    assert not multiprocessing.active_children()


def test_the_rank_that_hangs_is_told_from_those_that_wait_for_it() -> None:
    progress = Progress(3)

    def work(rank: int) -> None:
        for _ in range(4 if rank == 1 else 7):
            progress.note(rank)
        time.sleep(60)

    with pytest.raises(RankFailedError, match="rank 1 did the fewest steps, 4 of 7"):
        start_together(3, 0.5, work, progress=progress)
