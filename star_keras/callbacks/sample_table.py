"""Completions of each iteration as a table in TensorBoard."""

import keras

from star_keras.distribution import processes


class SampleTable(keras.callbacks.Callback):
    """Writes the first samples of each iteration under "Text" in TensorBoard.

    Needs no package but TensorFlow. Stands after `StarIterationCallback`, as
    `star.fit` has it.

    Args:
        star: The `StarIterationCallback`.
        directory: Directory of the events, local or `gs://`, e.g. the `log_dir` of
            `keras.callbacks.TensorBoard`.
        rows: int. Samples of each kind. Defaults to `20`.

    Example:
    ```text
    events = "runs/mine/events"
    board = keras.callbacks.TensorBoard(events)
    star.fit(epochs=2, callbacks=[board, SampleTable(star, events)])
    ```
    """

    def __init__(self, star, directory, rows=20):
        super().__init__()
        self._star, self._directory, self._rows = star, str(directory), rows

    def on_epoch_end(self, epoch, logs=None):
        import tensorflow as tf

        if not processes.is_writer():
            return
        iteration = epoch + 1
        writer = tf.summary.create_file_writer(self._directory)
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="text")
        )
        with writer.as_default(step=iteration):
            for kind in ("rationale", "rationalization", "evaluation"):
                samples = self._star.run.samples.load(iteration, kind)
                if samples:
                    table = _table(samples[: self._rows])
                    tf.summary.write(f"samples/{kind}", table, metadata=metadata)
        writer.close()


def _table(samples):
    """A table in Markdown."""
    lines = ["| problem | verdict | answer | completion |", "| --- | --- | --- | --- |"]
    for sample in samples:
        cells = sample.problem, sample.verdict, sample.answer, sample.completion
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines)


def _cell(value):
    if value is None:
        return ""
    # Code, so that no text of the model is markup.
    text = str(value).strip().replace("`", "'").replace("|", "\\|")
    return " ".join(f"`{line}`" for line in text.splitlines() if line.strip())
