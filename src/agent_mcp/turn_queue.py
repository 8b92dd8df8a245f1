"""Turns of one session wait for each other, in order of arrival."""

import asyncio
from collections import deque
from collections.abc import Hashable

from agent_mcp.errors import SessionBusy

LONGEST = 32


class Place:
    """A place in one session's queue. The one in front may run."""

    def __init__(self, queue: "TurnQueues", key: Hashable) -> None:
        self._queues = queue
        self._key = key
        self._front = asyncio.Event()

    def advance(self) -> None:
        self._front.set()

    async def front(self) -> None:
        """Waits until all that came before have left."""
        await self._front.wait()

    def leave(self) -> None:
        """Gives the place up, from wherever in the queue it is."""
        self._queues.remove(self._key, self)


class TurnQueues:
    """One queue for each session in which a turn waits or runs. Used on one event loop only."""

    def __init__(self) -> None:
        self._places: dict[Hashable, deque[Place]] = {}

    def join(self, key: Hashable) -> Place:
        """Takes the last place, at once; raises SessionBusy where 32 wait already."""
        places = self._places.setdefault(key, deque())
        if len(places) > LONGEST:
            raise SessionBusy(
                f"{LONGEST} asks wait in this session already: wait for their replies (get_reply), then ask again."
            )
        place = Place(self, key)
        places.append(place)
        if len(places) == 1:
            place.advance()
        return place

    def remove(self, key: Hashable, place: Place) -> None:
        places = self._places[key]
        places.remove(place)
        if places:
            places[0].advance()
        else:
            del self._places[key]
