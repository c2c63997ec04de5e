"""How good speech is that went through a call: PESQ-WB, STOI, delay, gaps. Run by a Python that has pesq, pystoi,
numpy and scipy (bench/call.py makes one).

    speech.py REFERENCE.wav HEARD.wav SENTENCES.json OFFSET
        SENTENCES: pairs of seconds in the reference; OFFSET: seconds by which the recording of what was heard began
        after the reference was first spoken. Prints one JSON object.

Each sentence is laid beside what was heard of it by itself, since a jitter buffer plays faster and slower between them.
"""

import json
import sys
import wave

import numpy as np
from pesq import pesq
from pystoi import stoi
from scipy.signal import correlate, resample_poly

RATE = 16000
# What is heard later than this after it was said was not found.
LATEST = 1.5


def read(path):
    with wave.open(path) as f:
        rate, channels = f.getframerate(), f.getnchannels()
        samples = np.frombuffer(f.readframes(f.getnframes()), dtype="<i2").astype(float)
    samples = samples.reshape(-1, channels).mean(axis=1)
    divisor = np.gcd(rate, RATE)
    return resample_poly(samples, RATE // divisor, rate // divisor)


def gaps(said, heard):
    """Windows of 100 ms in which somebody spoke and nothing was heard, and windows in which somebody spoke."""
    width = RATE // 10
    loud, lost = 0, 0
    for start in range(0, len(said) - width, width):
        a, b = said[start : start + width], heard[start : start + width]
        if np.sqrt((a**2).mean()) > 500:
            loud += 1
            lost += np.sqrt((b**2).mean()) < 0.05 * np.sqrt((a**2).mean())
    return lost, loud


def main(reference, heard, sentences, offset):
    said, heard = read(reference), read(heard)
    with open(sentences) as f:
        places = json.load(f)
    scores, stois, delays, lost, loud = [], [], [], 0, 0
    for start, end in places:
        part = said[int(start * RATE) : int(end * RATE)]
        # Where in the recording it would be if the call took no time.
        first = int((start - offset) * RATE)
        window = heard[max(first, 0) : first + len(part) + int(LATEST * RATE)]
        if first < 0 or len(window) < len(part):
            continue
        shift = int(np.argmax(correlate(window, part, mode="valid", method="fft")))
        match = window[shift : shift + len(part)]
        delays.append(shift / RATE)
        scores.append(pesq(RATE, part, match, "wb"))
        stois.append(stoi(part, match, RATE))
        l, n = gaps(part, match)
        lost, loud = lost + l, loud + n
    print(json.dumps({
        "sentences": len(scores),
        "pesq_wb": float(np.mean(scores)) if scores else None,
        "stoi": float(np.mean(stois)) if stois else None,
        "delay_ms": float(np.median(delays) * 1000) if delays else None,
        "worst_delay_ms": float(np.max(delays) * 1000) if delays else None,
        "lost_windows": lost / loud if loud else None,
    }))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
