"""When things happen and how they move: event times in seconds, per-frame curves as (n,) arrays."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]

MIN_GAP_S = 0.25
LEAD_IN_S, TAIL_S = 0.05, 0.15  # no event at the very edges: its motion or its sound would be cut off
GRAVITY = 9.0  # frame heights / s^2 in which the highest drop (1.0) takes 0.47 s


def event_count(duration_s: float) -> tuple[int, int]:
    """Fewest and most events of a clip: 0.6 to 1.4 a second (5 s: 3 to 7), as many as the gaps allow."""
    room = 1 + int((duration_s - LEAD_IN_S - TAIL_S) / (2 * MIN_GAP_S))
    low = max(1, min(math.ceil(0.6 * duration_s), room))
    return low, max(low, min(math.floor(1.4 * duration_s), room))


def strike_times(rng: np.random.Generator, duration_s: float) -> Curve:
    """Uniform points with a minimal gap: the past tells nothing about the next event beyond that gap."""
    low, high = event_count(duration_s)
    count = int(rng.integers(low, high + 1))
    free = duration_s - LEAD_IN_S - TAIL_S - (count - 1) * MIN_GAP_S
    return LEAD_IN_S + np.sort(rng.uniform(0, free, count)) + MIN_GAP_S * np.arange(count)


def since(times: Curve, events: Curve) -> Curve:
    """Seconds since the latest event; 99 before the first."""
    latest = np.searchsorted(events, times, side="right") - 1
    return np.where(latest >= 0, times - events[np.maximum(latest, 0)], 99.0)


def swing(times: Curve, events: Curve, strength: Curve, *, rest: float = 0.35) -> Curve:
    """Height of a striker above its target: 0 exactly at the events, `rest` between them.

    It is raised to its `strength` before a blow, falls within 70 ms and rebounds within 80 ms.
    """
    knots, heights = [-1.0], [rest]
    for index, event in enumerate(events):
        previous = events[index - 1] if index else -1.0
        knots += [max(event - 0.32, previous + 0.08), event - 0.07, event, event + 0.08]
        heights += [rest, strength[index], 0.0, rest]
    return np.interp(times, knots, heights)


def bounces(rng: np.random.Generator, times: Curve, duration_s: float) -> tuple[Curve, Curve, Curve]:
    """A ball dropped, bouncing ever lower, caught and dropped again.

    Returns:
        events: contact times; speeds: impact speeds in 0..1; heights: (n,) over the floor, 1 the top.
    """
    low, high = event_count(duration_s)
    while True:
        events, speeds, heights = _bounces(rng, times, duration_s)
        if low <= len(events) <= high:
            return events, speeds, heights


def _bounces(rng: np.random.Generator, times: Curve, duration_s: float) -> tuple[Curve, Curve, Curve]:
    events: list[float] = []
    speeds: list[float] = []
    heights = np.zeros(len(times))
    fastest = math.sqrt(2 * GRAVITY)
    last = duration_s - TAIL_S
    restitution = rng.uniform(0.62, 0.82)
    lift_from, held, height = -9.0, 0.0, 0.0  # where and when the hand last caught the ball
    release = rng.uniform(-0.3, 0.3 * duration_s)
    while True:
        top = rng.uniform(0.5, 1.0)
        fall = math.sqrt(2 * top / GRAVITY)
        contact = release + fall
        may_drop = contact <= last
        carried = np.clip((times - held) / max(release - held, 0.1), 0, 1)
        lifted = height + (top - height) * carried * carried * (3 - 2 * carried)
        heights = np.where(times >= lift_from, lifted, heights)
        if not may_drop:
            break
        heights = np.where(times >= release, top - 0.5 * GRAVITY * (times - release) ** 2, heights)
        bounces_left = int(rng.integers(0, 4))
        while True:
            if contact >= LEAD_IN_S:
                events.append(contact)
                speeds.append(GRAVITY * fall / fastest)
            fall *= restitution
            flight = 0.5 * GRAVITY * (times - contact) * (contact + 2 * fall - times)
            heights = np.where(times >= contact, flight, heights)
            if bounces_left == 0 or 2 * fall < MIN_GAP_S or contact + 2 * fall > last:
                break
            contact += 2 * fall
            bounces_left -= 1
        lift_from = held = contact + fall
        height = 0.5 * GRAVITY * fall * fall
        release = held + 0.12 + rng.exponential(0.45)
    return np.array(events), np.array(speeds), np.maximum(heights, 0.0)


def wander(rng: np.random.Generator, duration_s: float, low: float, high: float) -> tuple[Curve, Curve]:
    """A smooth random curve that turns every 0.4 to 1.2 s, as (seconds, values) at 100 Hz."""
    knots = np.concatenate([[0.0], np.cumsum(rng.uniform(0.4, 1.2, int(duration_s / 0.4) + 2))])
    values = rng.uniform(low, high, len(knots))
    # Every clip has something to hear: knot k is at 1.2 k seconds or sooner, so this one is inside the clip.
    values[rng.integers(int(duration_s / 1.2) + 1)] = high
    seconds = np.arange(int(duration_s * 100) + 2) / 100
    left = np.searchsorted(knots, seconds, side="right") - 1
    part = (seconds - knots[left]) / (knots[left + 1] - knots[left])
    return seconds, values[left] + (values[left + 1] - values[left]) * part * part * (3 - 2 * part)
