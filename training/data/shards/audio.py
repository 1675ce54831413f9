"""Audio of stored clips, mono, 16 bits: FLAC in blocks of one length, or PCM. Windows are read by place alone."""

import itertools
import wave
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import BinaryIO, NamedTuple

import numpy as np

BLOCK = 4096  # samples in a block of FLAC, within the limit of what any player decodes
_FULL_SCALE = 32768


class AudioPlaces(NamedTuple):
    """Where samples lie in a file.

    Attributes:
        samples: Number of samples.
        offset: Offset of the first block, or sample, in bytes.
        ends: Ends of the blocks of `BLOCK` samples, of which the last may be shorter, in bytes from `offset` on; none
            in PCM, whose samples all take two bytes.
    """

    samples: int
    offset: int
    ends: list[int]


def write_flac(file: BinaryIO, parts: Iterable[np.ndarray], rate: int) -> AudioPlaces:
    """Write samples as FLAC.

    Args:
        file: Seekable binary file to write to and read from.
        parts: Parts (n,) float32 of a waveform, full scale ±1, which is cut off there.
        rate: Sampling rate in Hz.
    """
    import av

    samples, sizes, first = 0, [], b""
    with av.open(file, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("flac", rate=rate, layout="mono", options={"frame_size": str(BLOCK)})
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for block in _blocks(parts):
            frame = av.AudioFrame.from_ndarray(block[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, samples, Fraction(1, rate)
            samples += len(block)
            for packet in stream.encode(frame):
                first = first or bytes(packet)
                sizes.append(packet.size)
                container.mux(packet)
        for packet in stream.encode(None) if samples else ():
            sizes.append(packet.size)
            container.mux(packet)
    sizes = [size for size in sizes if size]
    length = file.seek(0, 2)
    file.seek(0)
    offset = length - sum(sizes)
    file.seek(offset)
    if len(sizes) != -(-samples // BLOCK) or file.read(len(first)) != first:
        raise RuntimeError(f"Expected a FLAC file to end with {samples} samples in blocks of {BLOCK}.")
    return AudioPlaces(samples, offset, np.cumsum(sizes).tolist())


def write_pcm(file: BinaryIO, parts: Iterable[np.ndarray], rate: int) -> AudioPlaces:
    """Write samples as a WAV file; see `write_flac`."""
    samples = 0
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        for block in _blocks(parts):
            writer.writeframesraw(block.astype("<i2").tobytes())
            samples += len(block)
    return AudioPlaces(samples, file.seek(0, 2) - 2 * samples, [])


def _blocks(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield blocks (`BLOCK`,) int16, of which the last may be shorter."""
    left = np.zeros(0, np.float32)
    for part in parts:
        begin = BLOCK - len(left)
        if len(part) < begin:
            left = np.concatenate([left, part])
            continue
        yield _to_integers(np.concatenate([left, part[:begin]]))
        for place in range(begin, len(part) - BLOCK + 1, BLOCK):
            yield _to_integers(part[place : place + BLOCK])
        left = part[len(part) - (len(part) - begin) % BLOCK :].copy()
    if len(left):
        yield _to_integers(left)


def _to_integers(samples: np.ndarray) -> np.ndarray:
    return (samples * _FULL_SCALE).round().clip(-_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


def read_flac(read: Callable[[int, int], bytes], ends: np.ndarray, first: int, last: int, rate: int) -> np.ndarray:
    """Decode samples of a file that `write_flac` has written.

    Args:
        read: Function that reads a number of bytes at a place, in bytes from the first block on.
        ends: Those of `AudioPlaces`.
        first: First sample.
        last: End of the samples, exclusive, within the file and after `first`.
        rate: Sampling rate in Hz.

    Returns:
        (last - first,) float32; fewer samples, of the blocks before, if a block other than the first is damaged.

    Raises:
        av.FFmpegError: The first block is damaged.
    """
    import av

    low, high = first // BLOCK, -(-last // BLOCK)
    edges = [int(ends[low - 1]) if low else 0, *map(int, ends[low:high])]
    content = read(edges[0], edges[-1] - edges[0])
    decoder = av.CodecContext.create("flac", "r")
    decoder.thread_count = 1
    decoder.options = {"err_detect": "crccheck+explode"}
    decoder.extradata = _stream_info(rate)
    found = []
    for begin, end in itertools.pairwise(edges):
        try:
            frames = decoder.decode(av.Packet(content[begin - edges[0] : end - edges[0]]))
        except av.FFmpegError:
            if not found:
                raise
            break
        found += [np.frombuffer(frame.planes[0], np.int16, frame.samples) for frame in frames]
    samples = np.concatenate(found) if found else np.zeros(0, np.int16)
    return _to_float(samples[first - low * BLOCK : last - low * BLOCK])


def read_pcm(read: Callable[[int, int], bytes], ends: np.ndarray, first: int, last: int, rate: int) -> np.ndarray:
    """Read samples of a file that `write_pcm` has written; see `read_flac`."""
    return _to_float(np.frombuffer(read(2 * first, 2 * (last - first)), "<i2"))


def _to_float(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / _FULL_SCALE


def _stream_info(rate: int) -> bytes:
    """What FLAC's header says of all blocks: their length, and one channel of 16 bits at a rate."""
    lengths = BLOCK.to_bytes(2, "big") * 2 + bytes(6)
    return lengths + (rate << 44 | 15 << 36).to_bytes(8, "big") + bytes(16)


class AudioFormat(NamedTuple):
    """How audio is stored: the suffix of its members, and the functions that write and read them."""

    suffix: str
    write: Callable[[BinaryIO, Iterable[np.ndarray], int], AudioPlaces]
    read: Callable[[Callable[[int, int], bytes], np.ndarray, int, int, int], np.ndarray]


AUDIO_FORMATS = {"flac": AudioFormat("flac", write_flac, read_flac), "pcm": AudioFormat("wav", write_pcm, read_pcm)}

__all__ = ["AUDIO_FORMATS", "BLOCK", "AudioFormat", "AudioPlaces", "read_flac", "read_pcm", "write_flac", "write_pcm"]
