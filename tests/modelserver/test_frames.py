"""Frames survive any cutting of the stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enginehouse.modelserver.frames import FrameReader, pack

frames = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1), st.binary(max_size=60)), max_size=12
)


@given(frames, st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_frames_come_out_as_they_went_in(sent: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(pack(*frame) for frame in sent)
    reader = FrameReader()
    received = []
    position = number = 0
    while position < len(stream):
        size = cuts[number % len(cuts)]
        received += reader.feed(stream[position : position + size])
        position, number = position + size, number + 1
    assert received == sent


def test_a_large_frame_in_small_pieces() -> None:
    payload = bytes(range(256)) * 4096
    stream = pack(7, 200, payload)
    reader = FrameReader()
    received = [frame for start in range(0, len(stream), 1000) for frame in reader.feed(stream[start : start + 1000])]
    assert received == [(7, 200, payload)]
