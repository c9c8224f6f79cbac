"""TensorBoard's side of `charts`, run by the peer's interpreter: `_tensorboard.py DIRECTORY FILE.npz…`. Imports nothing of ours.

Each file holds a run's series by name; they become event files in a folder of the file's name.
"""

import pathlib
import sys


def main(directory, *files):
    """Writes every point, as a trainer would."""
    import numpy as np
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for file in map(pathlib.Path, files):
        writer = EventFileWriter(str(pathlib.Path(directory) / file.stem), max_queue_size=10_000, flush_secs=600)
        series = np.load(file)
        for name in series.files:
            for step, value in enumerate(series[name].tolist()):
                summary = Summary(value=[Summary.Value(tag=name.replace("|", "/"), simple_value=value)])
                writer.add_event(Event(step=step, wall_time=1.8e9 + step, summary=summary))
        writer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
