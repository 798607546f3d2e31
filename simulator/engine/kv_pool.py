"""The paged KV cache of one replica: pages that requests own, and blocks of prompts that are kept for reuse."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field


def pages_of(tokens: int, page_tokens: int) -> int:
    """Pages that hold so many tokens.

    >>> pages_of(33, 16)
    3
    """
    return -(-tokens // page_tokens)


@dataclass(slots=True, kw_only=True)
class KvPool:
    """Pages in use and free.

    Blocks of finished prompts stay as long as nobody needs their pages: they count as free, and the one that was used
    least recently goes first.

    Parameters
    ----------
    n_pages, page_tokens : size of the pool, tokens of one page
    """

    n_pages: int
    page_tokens: int
    owned_pages: int = 0
    _pages_of_block: dict[int, int] = field(default_factory=dict)
    _users: dict[int, int] = field(default_factory=dict)
    _idle: OrderedDict[int, None] = field(default_factory=OrderedDict)
    _shared_pages: int = 0
    _idle_pages: int = 0

    @property
    def used_pages(self) -> int:
        """Pages that a request needs now."""
        return self.owned_pages + self._shared_pages

    @property
    def free_pages(self) -> int:
        """Pages that can be had: empty ones, and those of blocks nobody uses."""
        return self.n_pages - self.owned_pages - self._shared_pages

    def take(self, pages: int) -> None:
        """Give pages to a request; dropping idle blocks where the empty ones do not suffice."""
        self.owned_pages += pages
        assert self.owned_pages + self._shared_pages <= self.n_pages, "more pages taken than there are"
        if self._idle_pages:
            self._evict()

    def give_back(self, pages: int) -> None:
        """Take pages from a request."""
        self.owned_pages -= pages
        assert self.owned_pages >= 0, "more pages given back than taken"

    def matched_blocks(self, hashes: Sequence[int]) -> int:
        """Leading blocks of a prompt that are here."""
        known, n = self._pages_of_block, 0
        for block in hashes:
            if block not in known:
                break
            n += 1
        return n

    def idle_pages_of(self, hashes: Sequence[int]) -> int:
        """Pages of these blocks that count as free until somebody uses them."""
        return sum(self._pages_of_block[block] for block in hashes if block in self._idle)

    def share(self, hashes: Sequence[int]) -> None:
        """One more request uses these blocks, which are all here."""
        for block in hashes:
            users = self._users.get(block, 0)
            self._users[block] = users + 1
            if not users:
                pages = self._pages_of_block[block]
                del self._idle[block]
                self._idle_pages -= pages
                self._shared_pages += pages

    def publish(self, hashes: Sequence[int], pages: int) -> None:
        """Blocks of `pages` pages each, which a request owned, become shared by it with whoever comes.

        Where another request published the same block first, the copy is dropped.
        """
        for block in hashes:
            self.owned_pages -= pages
            if block not in self._pages_of_block:
                self._pages_of_block[block] = pages
                self._users[block] = 1
                self._shared_pages += pages
            else:
                self.share((block,))

    def unshare(self, hashes: Sequence[int]) -> None:
        """A request no longer uses these blocks; the last of a prompt is forgotten before the first."""
        for block in reversed(hashes):
            users = self._users[block] - 1
            if users:
                self._users[block] = users
                continue
            pages = self._pages_of_block[block]
            del self._users[block]
            self._shared_pages -= pages
            self._idle[block] = None
            self._idle_pages += pages

    def _evict(self) -> None:
        """Drop idle blocks until everything fits."""
        while self.owned_pages + self._shared_pages + self._idle_pages > self.n_pages:
            block, _ = self._idle.popitem(last=False)
            self._idle_pages -= self._pages_of_block.pop(block)
