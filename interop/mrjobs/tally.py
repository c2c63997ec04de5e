"""Which words follow which, with counters, a combiner and values in order (of their JSON)."""
import json

from mrjob.job import MRJob


class Tally(MRJob):
    SORT_VALUES = True

    def mapper(self, _, line):
        words = line.split()
        self.increment_counter("text", "lines")
        self.increment_counter("text, of", "words: all=", len(words))
        for word, then in zip(words, words[1:]):
            yield word, [then, 1]

    def combiner(self, word, pairs):
        seen = {}
        for then, n in pairs:
            seen[then] = seen.get(then, 0) + n
        for then, n in seen.items():
            yield word, [then, n]

    def reducer(self, word, pairs):
        pairs = list(pairs)
        assert pairs == sorted(pairs, key=json.dumps), f"the values of {word} are not in order"
        seen = {}
        for then, n in pairs:
            seen[then] = seen.get(then, 0) + n
        self.increment_counter("text", "words that are followed")
        yield word, sorted(seen.items())


if __name__ == "__main__":
    Tally.run()
