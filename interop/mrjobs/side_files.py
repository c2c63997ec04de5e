"""Counts the words of a file that is named by a flag, weighted by a file beside the script, and tells
what is in an archive."""
import json
import os

from mrjob.job import MRJob


class SideFiles(MRJob):
    FILES = ["weights.json"]

    def configure_args(self):
        super().configure_args()
        self.add_file_arg("--wanted")

    def mapper_init(self):
        with open(self.options.wanted) as file:
            self.wanted = set(file.read().split())
        with open("weights.json") as file:
            self.weights = json.load(file)

    def mapper(self, _, line):
        for word in line.split():
            if word in self.wanted:
                yield word, self.weights.get(word, 1)

    def reducer_init(self):
        self.inside = sorted(os.listdir("archive")) if os.path.isdir("archive") else []

    def reducer(self, word, weights):
        yield word, [sum(weights), self.inside, os.environ.get("SIDE_COLOUR")]


if __name__ == "__main__":
    SideFiles.run()
