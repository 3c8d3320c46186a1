"""Load of the server: many clients for some minutes, against `sample()`.

    python -m benchmarks.serve --size=small --clients=64 --seconds=600

Each client sends one request after another, half of them streams: questions of 24 to
48 tokens, greedy completions of known lengths of 16 to 94 tokens, see
`benchmarks.countdown`. Server and `sample()` have processes of their own, the same
model and the same number of slots. The clients are in this process, on the same cores.
Needs aiohttp.

Columns:
    requests    answered
    lost        without an answer, or with an error
    wrong       with other text than the model writes
    tokens/s    tokens of completions, end tokens included
    of sample   that speed against `sample()` on the same questions
    p50 s       median time of a request
    p99 s       99th percentile of it
    MiB before  resident set of the server after a tenth of the time
    MiB after   at the end
"""

import asyncio
import contextlib
import itertools
import json
import signal
import subprocess
import sys
import time

import numpy as np
from absl import app, flags

from benchmarks import countdown
from benchmarks.comparison import measure_alone
from benchmarks.libraries import load_libraries
from benchmarks.machine import memory_mib
from benchmarks.models import chosen_size
from benchmarks.peers import LONGEST_COMPLETION

FLAGS = flags.FLAGS
flags.DEFINE_integer("clients", 64, "Clients at a time.", lower_bound=1)
flags.DEFINE_integer("slots", 32, "Completions decoded together.", lower_bound=1)
flags.DEFINE_float("seconds", 600, "Duration of the load.", lower_bound=1)
flags.DEFINE_integer("problems", 1024, "Different questions.", lower_bound=1)
flags.DEFINE_enum("peer", None, ("sample", "serve"), "Used by this script itself.")


def measure_sample():
    """Tokens a second of `sample()` on all questions, the second time."""
    load_libraries()
    from star_keras.sampling import ContinuousSampler, SampleRequest

    sampler = ContinuousSampler(
        countdown.make_model(chosen_size(), 0),
        max_new_tokens=LONGEST_COMPLETION,
        batch_size=FLAGS.slots,
    )
    _, questions = countdown.make_problems(0, FLAGS.problems)
    requests = [SampleRequest(prompt=tuple(x), name=str(x)) for x in questions]
    for _ in range(2):
        start = time.perf_counter()
        batches = sampler.sample(requests)
        tokens = sum(x.num_tokens for batch in batches for _, x in batch)
        seconds = time.perf_counter() - start
    return tokens / seconds


def run_server():
    """Serve the model; its first line of output has the address."""
    load_libraries()
    from star_keras.config import ServingConfig
    from star_keras.serving import Service, serve

    config = ServingConfig(port=0, slots=FLAGS.slots, max_new_tokens=LONGEST_COMPLETION)
    serve(Service(countdown.make_model(chosen_size(), 0), config, name="countdown"))


class Load:
    """The clients, and what they measure.

    Args:
        url: Address of the completions.
        questions: Token ids of the prompts.
        texts: The completion of each.
        seconds: Duration.
    """

    def __init__(self, url, questions, texts, seconds):
        self.url, self.questions, self.texts = url, questions, texts
        self.numbers = itertools.count()
        self.end = time.monotonic() + seconds
        self.seconds, self.lost, self.wrong, self.tokens = [], [], 0, 0

    async def run(self, clients):
        """All clients to their end."""
        import aiohttp

        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
        ) as session:
            await asyncio.gather(*(self._client(session) for _ in range(clients)))

    async def _client(self, session):
        while time.monotonic() < self.end:
            number = next(self.numbers)
            i, stream = number % len(self.questions), number % 2 == 1
            start = time.monotonic()
            try:
                text = await self._ask(session, self.questions[i], stream)
            except Exception as error:
                self.lost.append(repr(error))
                continue
            self.seconds.append(time.monotonic() - start)
            self.tokens += len(countdown.expected_completion(self.questions[i]))
            self.wrong += text != self.texts[i]

    async def _ask(self, session, question, stream):
        body = {
            "model": "countdown",
            "prompt": question,
            "max_tokens": LONGEST_COMPLETION,
            "temperature": 0,
            "stream": stream,
        }
        async with session.post(self.url, json=body) as response:
            response.raise_for_status()
            if not stream:
                return (await response.json())["choices"][0]["text"]
            text, done = "", False
            async for line in response.content:
                data = line.decode().strip().removeprefix("data: ")
                done = done or data == "[DONE]"
                if data and not done:
                    text += json.loads(data)["choices"][0]["text"]
            if not done:
                raise RuntimeError("The stream has no end.")
            return text


@contextlib.contextmanager
def server(arguments):
    """The process of a server, and its address."""
    command = [sys.executable, "-m", "benchmarks.serve", *arguments, "--peer=serve"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit("The server did not start.")
        yield process.pid, line.split()[-1]
        process.send_signal(signal.SIGTERM)
        if process.wait(60):
            raise SystemExit(f"The server ended with exit code {process.returncode}.")
    finally:
        process.kill()
        process.wait()


async def measure_load(load, process):
    """Seconds of the load, and the memory of the server before and after."""
    start = time.monotonic()
    running = asyncio.create_task(load.run(FLAGS.clients))
    await asyncio.sleep(FLAGS.seconds / 10)
    before = memory_mib("VmRSS", process)
    await running
    return time.monotonic() - start, before, memory_mib("VmRSS", process)


def main(argv):
    if FLAGS.peer == "sample":
        print(json.dumps(measure_sample()))
        return
    if FLAGS.peer == "serve":
        run_server()
        return
    from star_keras.testing import byte_tokenizer

    chosen_size()  # an error before the first process
    names = ("family", "size", "slots", "problems")
    arguments = [f"--{name}={getattr(FLAGS, name)}" for name in names]
    print(*arguments, f"--clients={FLAGS.clients} --seconds={FLAGS.seconds}")
    _, questions = countdown.make_problems(0, FLAGS.problems)
    tokenizer = byte_tokenizer()
    texts = [
        tokenizer.detokenize(countdown.expected_completion(x)[:-1]) for x in questions
    ]
    sampled = measure_alone("benchmarks.serve", arguments, "sample")
    with server(arguments) as (process, url):
        # Compiles what is left.
        load = Load(f"{url}/completions", questions, texts, FLAGS.seconds / 20)
        asyncio.run(load.run(FLAGS.clients))
        load = Load(f"{url}/completions", questions, texts, FLAGS.seconds)
        seconds, before, after = asyncio.run(measure_load(load, process))
    speed = load.tokens / seconds
    print(
        f"{'requests':>8} {'lost':>5} {'wrong':>5} {'tokens/s':>9} {'of sample':>9} "
        f"{'p50 s':>6} {'p99 s':>6} {'MiB before':>10} {'MiB after':>9}"
    )
    median, last = np.percentile(load.seconds or [0], (50, 99))
    print(
        f"{len(load.seconds):8} {len(load.lost):5} {load.wrong:5} {speed:9.0f} "
        f"{speed / sampled:9.2f} {median:6.2f} {last:6.2f} {before:10.0f} {after:9.0f}"
    )
    for error in load.lost[:5]:
        print(error)


if __name__ == "__main__":
    app.run(main)
