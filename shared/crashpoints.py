"""Named moments, before and after each effect on the outside, at which a test can end the process.

A system that is to survive its own death at any moment has to die at every one of them once. Which ones there are is a
literal table per service. Outside tests none of this runs: nothing is wrapped unless ``QT_CRASHPOINT`` is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar, cast

from shared.errors import ConfigurationError

#: Exit code of a process that ended at its point: the one of SIGKILL, because that is what it stands for.
EXIT_CODE = 137

T = TypeVar("T")


def points_of(effect: str) -> tuple[str, str]:
    """Return the names of the two points around ``effect``."""
    return f"{effect}:before", f"{effect}:after"


class Crashpoints:
    """Ends the process at one chosen point.

    Attributes:
        armed: The point, empty for none.
    """

    def __init__(
        self, armed: str = "", *, known: Collection[str] = (), end: Callable[[int], object] = os._exit
    ) -> None:
        """Arm one point.

        Args:
            armed: Name of a point, or ``name#n`` for its n-th time; empty for none.
            known: The points that there are.
            end: Ends the process at once, without a word to anybody.

        Raises:
            ConfigurationError: There is no such point.
        """
        name, _, times = armed.partition("#")
        if armed and (name not in known or not (times or "1").isdigit() or int(times or "1") < 1):
            raise ConfigurationError(
                f"QT_CRASHPOINT {armed!r} is not known; `quantum-trader doctor --crashpoints` lists the points, "
                "name#3 means the third time"
            )
        self.armed = name
        self._left = int(times or "1")
        self._end = end

    def reach(self, name: str) -> None:
        """Pass the point ``name``, or do not."""
        if name != self.armed:
            return
        self._left -= 1
        if self._left == 0:
            sys.stderr.write(f"the process ends at its crash point {name}\n")
            sys.stderr.flush()
            self._end(EXIT_CODE)

    def around(self, inner: T, port: str, effects: Collection[str]) -> T:
        """Return ``inner`` with a point before and after each of its coroutine methods ``effects``.

        The points are ``<port>.<method>:before`` and ``:after``; after means that it came back without an error.
        Without an armed point ``inner`` itself comes back.
        """
        if not self.armed:
            return inner
        return cast("T", _Around(inner, {name: f"{port}.{name}" for name in effects}.get, self))

    def around_commands(self, inner: T, port: str, methods: Collection[str], commands: Collection[str]) -> T:
        """Return ``inner`` with points around each call of ``methods`` whose arguments hold one of ``commands``.

        Every argument is a sequence that begins with the name of its command; the point is ``<port>.<command>``.
        """
        if not self.armed:
            return inner

        def effect_of(method: str) -> str | None:
            return port if method in methods else None

        def named(effect: str, arguments: Sequence[Any]) -> str | None:
            found = next((argument[0] for argument in arguments if argument[0] in commands), None)
            return None if found is None else f"{effect}.{found}"

        return cast("T", _Around(inner, effect_of, self, named))


class _Around:
    """Stands before an object and passes everything on."""

    def __init__(
        self,
        inner: object,
        effect_of: Callable[[str], str | None],
        points: Crashpoints,
        named: Callable[[str, Sequence[Any]], str | None] = lambda effect, _arguments: effect,
    ) -> None:
        self._inner = inner
        self._effect_of = effect_of
        self._points = points
        self._named = named

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        effect = self._effect_of(name)
        if effect is None:
            return attribute
        return self._wrapped(attribute, effect)

    def _wrapped(self, method: Callable[..., Awaitable[Any]], effect: str) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **named_arguments: Any) -> Any:
            name = self._named(effect, arguments)
            if name is None:
                return await method(*arguments, **named_arguments)
            before, after = points_of(name)
            self._points.reach(before)
            result = await method(*arguments, **named_arguments)
            self._points.reach(after)
            return result

        return call
