"""Bytes of each input file, which mrjob hands over whole."""
import os

from mrjob.job import MRJob


class WholeFiles(MRJob):
    def mapper_raw(self, path, uri):
        yield os.path.basename(uri), os.path.getsize(path)

    def reducer(self, name, sizes):
        yield name, list(sizes)


if __name__ == "__main__":
    WholeFiles.run()
