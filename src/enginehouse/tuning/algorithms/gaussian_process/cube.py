"""The unit cube of a space for many points at once (space.py has it for one)."""

from __future__ import annotations

from enginehouse.tuning.algorithms.numerics import numpy as np
from enginehouse.tuning.space import INACTIVE, Space

Array = np.ndarray


class Cube:
    """Rounds coordinates to those of points of the space, and knows the neighbours of a point.

    Attributes:
        categorical: (n_axes,) bool.
        smooth: (n_axes,) bool, the axes along which a slope leads somewhere.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.categorical = np.array([axis.is_categorical for axis in space.axes])
        self.levels = [None if axis.levels is None else np.array(axis.levels) for axis in space.axes]
        self.smooth = np.array([levels is None for levels in self.levels])
        self._parents = [axis.parent for axis in space.axes]
        # The parts of the parent's axis where a child is there.
        self._spans = [
            np.array([space.axes[axis.parent].span(value) for value in axis.when])
            if axis.parent is not None
            else np.empty((0, 2))
            for axis in space.axes
        ]

    def snap(self, at: Array) -> Array:
        """The nearest coordinates that stand for a point: (m, n_axes) float64, both."""
        at = np.clip(at, 0.0, 1.0)
        for axis, levels in enumerate(self.levels):
            if levels is not None:
                middles = (levels[1:] + levels[:-1]) / 2
                at[:, axis] = levels[np.searchsorted(middles, at[:, axis])]
        at[~self.active(at)] = INACTIVE
        return at

    def active(self, at: Array) -> Array:
        """(m, n_axes) bool: which parameters the snapped points have."""
        active = np.ones(at.shape, dtype=bool)
        for axis, parent in enumerate(self._parents):
            if parent is not None:
                u = at[:, parent, None]
                spans = self._spans[axis]
                active[:, axis] = active[:, parent] & ((spans[:, 0] <= u) & (u <= spans[:, 1])).any(axis=1)
        return active

    def at_shares(self, shares: Array) -> Array:
        """Points where each parameter's value has its share of [0, 1]: (m, n_axes) float64, both."""
        return self.snap(self.by_share(shares))

    def by_share(self, shares: Array) -> Array:
        """Likewise, with coordinates of the parameters that the points don't have, too."""
        at = shares.copy()
        for axis, levels in enumerate(self.levels):
            if levels is not None and self.space.axes[axis].values is not None:
                index = (shares[:, axis] * len(levels)).astype(int)
                is_range = self.space.axes[axis].spec.integer_value_spec is not None
                at[:, axis] = shares[:, axis] if is_range else levels[np.minimum(index, len(levels) - 1)]
        return at

    def neighbours(self, of: Array, reach: int) -> Array:
        """Points that differ in one parameter of values that can be listed: (m, n_axes) from (n_axes,) float64.

        Of a category every other value; of numbers those up to `reach` steps away, and then in doubling steps.
        """
        rows = []
        for axis, levels in enumerate(self.levels):
            if levels is None or len(levels) < 2:
                continue
            here = int(np.argmin(np.abs(levels - of[axis])))
            if self.categorical[axis]:
                others = [index for index in range(len(levels)) if index != here][:50]
            else:
                steps = [*range(1, reach + 1)]
                while steps[-1] < len(levels) // 2:
                    steps.append(steps[-1] * 2)
                others = [
                    here + step * way for step in steps for way in (1, -1) if 0 <= here + step * way < len(levels)
                ]
            for index in others:
                # A child that was not there begins in the middle.
                row = np.where(of == INACTIVE, 0.5, of)
                row[axis] = levels[index]
                rows.append(row)
        return self.snap(np.array(rows)) if rows else np.empty((0, len(of)))
