"""Parametric minimum cuts on a small graph: one run of push-relabel per growing series of foreground sets.

As lambda grows, only the capacities out of the source grow.  Then the distance labels of push-relabel stay valid and
the flow is kept from one lambda to the next, so that a whole series costs about as much as one maximum flow, and every
foreground contains the one before (Gallo, Grigoriadis and Tarjan, "A Fast Parametric Maximum Flow Algorithm", 1989).
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np


class Arcs(NamedTuple):
    """An undirected graph of N nodes and E edges, each edge as two opposite arcs, sorted by the node they leave."""

    starts: np.ndarray  # (N + 1,) int64 where the arcs of each node begin
    heads: np.ndarray  # (2 E,) int64 node each arc leads to
    twins: np.ndarray  # (2 E,) int64 the opposite arc
    edges: np.ndarray  # (2 E,) int64 row of `pairs` it comes from


def arcs(pairs: np.ndarray, count: int) -> Arcs:
    """The arcs of (E, 2) int `pairs` of different nodes, numbered from 0 to `count` - 1."""
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    tails, heads = np.concatenate([pairs[:, 0], pairs[:, 1]]), np.concatenate([pairs[:, 1], pairs[:, 0]])
    order = np.argsort(tails, kind="stable")
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    starts = np.concatenate([[0], np.cumsum(np.bincount(tails, minlength=count))]).astype(np.int64)
    half = len(pairs)
    return Arcs(starts, heads[order], places[(order + half) % max(2 * half, 1)], order % max(half, 1))


def foregrounds(
    graph: Arcs, weights: np.ndarray, seeds: np.ndarray, biases: np.ndarray, slopes: np.ndarray, lambdas: np.ndarray
) -> np.ndarray:
    """(K, L, N) bool: K series of minimum cuts, each for L ascending lambdas; true is foreground.

    Series k at lambda l minimises, over all foregrounds with seeds[k] in them,

        sum over edges (i, j) that are cut of weights[edge]  -  sum over i in the foreground of biases[k, i] +
        lambdas[l] slopes[i],

    and takes the largest minimiser.  `weights` (E,) >= 0; `biases` (K, N), -inf keeps a node in the background;
    `slopes` (N,) >= 0.
    """
    biases = np.asarray(biases, np.float64)
    lambdas = np.asarray(lambdas, np.float64)
    slopes = np.asarray(slopes, np.float64)
    first = biases + lambdas[0] * slopes
    capacities = np.asarray(weights, np.float64)[graph.edges]
    steps = np.diff(lambdas, prepend=lambdas[0])
    return _foregrounds(*graph[:3], capacities, np.asarray(seeds, np.int64), first, slopes, steps)


@numba.njit(cache=True)
def components(starts: np.ndarray, heads: np.ndarray, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The connected components of (C, N) bool sets of nodes: (P, N) bool, and (P,) int64 the set each comes from."""
    count = sets.shape[1]
    labels = np.zeros((len(sets), count), np.int64)
    queue = np.empty(count, np.int64)
    total = 0
    for c in range(len(sets)):
        for node in range(count):
            if not sets[c, node] or labels[c, node]:
                continue
            total += 1
            labels[c, node] = total
            queue[0], filled, done = node, 1, 0
            while done < filled:
                tail = queue[done]
                done += 1
                for arc in range(starts[tail], starts[tail + 1]):
                    head = heads[arc]
                    if sets[c, head] and not labels[c, head]:
                        labels[c, head] = total
                        queue[filled] = head
                        filled += 1
    members = np.zeros((total, count), np.bool_)
    origins = np.empty(total, np.int64)
    for c in range(len(sets)):
        for node in range(count):
            if labels[c, node]:
                members[labels[c, node] - 1, node] = True
                origins[labels[c, node] - 1] = c
    return members, origins


@numba.njit(cache=True)
def _foregrounds(starts, heads, twins, capacities, seeds, first, slopes, steps):
    count = len(slopes)
    found = np.zeros((len(seeds), len(steps), count), np.bool_)
    labels = np.empty(count, np.int64)
    queue = np.empty(count, np.int64)
    queued = np.zeros(count, np.bool_)
    for k in range(len(seeds)):
        seed = seeds[k]
        residual = capacities.copy()
        excess = np.maximum(first[k], 0.0)  # what the source sends
        drain = np.maximum(-first[k], 0.0)  # what the sink still takes
        drain[seed] = 0.0
        for arc in range(starts[seed], starts[seed + 1]):
            excess[heads[arc]] += residual[arc]
            residual[twins[arc]] += residual[arc]
            residual[arc] = 0.0
        for step in range(len(steps)):
            if steps[step] > 0:
                excess += slopes * steps[step]
            excess[seed] = 0.0
            while _distances(starts, heads, twins, residual, drain, seed, labels, queue, excess):
                _discharge(starts, heads, twins, residual, drain, excess, labels, queue, queued)
            found[k, step] = labels == count
    return found


@numba.njit(cache=True)
def _distances(starts, heads, twins, residual, drain, seed, labels, queue, excess):
    """Set the exact distances to the sink, N where there is no way; whether some excess can still get there."""
    count = len(labels)
    labels[:] = count
    filled = 0
    for node in range(count):
        if drain[node] > 0 and node != seed:
            labels[node] = 1
            queue[filled] = node
            filled += 1
    done, active = 0, False
    while done < filled:
        node = queue[done]
        done += 1
        active |= excess[node] > 0
        for arc in range(starts[node], starts[node + 1]):
            tail = heads[arc]
            if labels[tail] == count and tail != seed and residual[twins[arc]] > 0:
                labels[tail] = labels[node] + 1
                queue[filled] = tail
                filled += 1
    return active


@numba.njit(cache=True)
def _discharge(starts, heads, twins, residual, drain, excess, labels, queue, queued):
    """First in, first out, until no node is active or there were N relabels: then new distances are cheaper."""
    count = len(labels)
    waiting, place = 0, 0
    for node in range(count):
        queued[node] = excess[node] > 0 and labels[node] < count
        if queued[node]:
            queue[waiting] = node
            waiting += 1
    relabels = 0
    while waiting and relabels < count:
        node = queue[place]
        place = (place + 1) % count
        waiting -= 1
        queued[node] = False
        while excess[node] > 0 and labels[node] < count:
            lowest = count
            if drain[node] > 0:
                amount = min(excess[node], drain[node])
                excess[node] -= amount
                drain[node] -= amount
                lowest = 1 if drain[node] > 0 else count
            for arc in range(starts[node], starts[node + 1]):
                if excess[node] <= 0:
                    break
                head = heads[arc]
                if residual[arc] <= 0:
                    continue
                if labels[head] == labels[node] - 1:
                    amount = min(excess[node], residual[arc])
                    excess[node] -= amount
                    residual[arc] -= amount
                    residual[twins[arc]] += amount
                    excess[head] += amount
                    if not queued[head]:
                        queued[head] = True
                        queue[(place + waiting) % count] = head
                        waiting += 1
                if residual[arc] > 0:
                    lowest = min(lowest, labels[head] + 1)
            if excess[node] > 0:
                labels[node] = lowest
                relabels += 1
