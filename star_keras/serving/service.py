"""What the server does with a request, without HTTP: limits, tokens, completions."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import keras

from star_keras.config import ServingConfig
from star_keras.models.max_sequence_length import max_sequence_length
from star_keras.sampling import (
    Completion,
    ContinuousSampler,
    RequestSettings,
    SampleRequest,
    TokenScorer,
)
from star_keras.serving.api_error import ApiError, bad_field
from star_keras.serving.choices import Choice
from star_keras.serving.deadlines import Deadlines, stopping
from star_keras.serving.engine_thread import EngineThread, Job
from star_keras.serving.live_run import LiveRun
from star_keras.serving.metrics import Metrics
from star_keras.serving.prompts import Prompt, PromptReader
from star_keras.serving.protocol import ApiRequest
from star_keras.utils.errors import invalid

# Between two looks at the run directory.
_POLL_SECONDS = 2.0


class Service:
    """Answers the requests of clients with a model.

    Methods that are coroutines, and `admit`, belong to one event loop.

    Args:
        model: A `keras_hub.models.CausalLM` of a known family, with a preprocessor.
        config: Its limits are used.
        name: Name of the model. Defaults to `config.model_name`.
        chat: A `ChatTemplate`, or `None` for a model that cannot chat.

    Attributes:
        name: See above.
        config: See above.
        max_length: Most tokens of a prompt and its completion.
        max_new_tokens: Most tokens of a completion.
        sampler: The `ContinuousSampler`.
        reader: The `PromptReader`.
        metrics: The `Metrics`.
        deadlines: The `Deadlines` of the requests under way.
        draining: Whether new requests are refused.
        unfinished: Number of completions that are under way or wait.

    Raises:
        ValueError: if `max_length` is more than the model takes, the run directory is
            missing, damaged or of another model, or as for `ContinuousSampler`.
    """

    def __init__(self, model, config: ServingConfig, *, name="model", chat=None):
        self.config = config
        self.name = config.model_name or name
        limit = max_sequence_length(model)
        self.max_length = (
            config.max_length or limit or model.preprocessor.sequence_length
        )
        if limit and self.max_length > limit:
            rule = f"at most {limit}, the `max_sequence_length` of the model"
            raise invalid("max_length", rule, self.max_length)
        self.max_new_tokens = min(config.max_new_tokens, self.max_length - 1)
        self.sampler = ContinuousSampler(
            model, max_new_tokens=self.max_new_tokens, batch_size=config.slots
        )
        self.reader = PromptReader(
            self.sampler, chat, name=self.name, max_length=self.max_length
        )
        self.metrics = Metrics()
        self.deadlines = Deadlines(config.request_seconds)
        self.draining = False
        self.unfinished = 0
        self._distribution = keras.distribution.distribution()
        self._scorer = TokenScorer(model)
        self._tokenizing = ThreadPoolExecutor(1, "tokenizer")
        self._scoring = ThreadPoolExecutor(1, "scorer", self._join_distribution)
        self._run = None
        if config.run_dir is not None:
            self._run = LiveRun(model, config.run_dir)
            self._run.load_newest()
        self._engine: EngineThread | None = None
        # Those of earlier iterations, with their last requests.
        self._old_engines: list[EngineThread] = []
        self._following: asyncio.Task | None = None

    def _join_distribution(self):
        if self._distribution is not None:
            keras.distribution.set_distribution(self._distribution)

    # === Life ===

    async def start(self):
        """Start to decode, and compile with one short completion.

        Raises:
            Exception: why the model cannot be sampled.
        """
        if self._run is not None:
            self._following = asyncio.create_task(self._follow())
        self._engine = await self._new_engine()
        start = self.sampler.reader.end_token_ids[0]
        request = SampleRequest(prompt=(start, start), name="warm-up")
        settings = RequestSettings(max_new_tokens=1)
        async for _ in self._engine.submit([(request, settings)], stop=()):
            pass

    async def _new_engine(self):
        engine = EngineThread(self.sampler, self._distribution)
        await engine.start()
        return engine

    async def _follow(self):
        """Change over to each new iteration of the run."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                if not await self._in(self._scoring, self._run.load_newest):
                    continue
                # Accepted requests go on with the weights that they began with.
                engine = await self._new_engine()
            except (OSError, RuntimeError, ValueError) as error:
                logging.warning("The newest weights cannot be served yet: %s", error)
                continue
            self._old_engines.append(self._engine)
            self._engine.close()
            self._engine = engine
            logging.warning("Iteration %d is served.", self.iteration)
            self._old_engines = [x for x in self._old_engines if x.is_alive]

    def _in(self, threads, function, *arguments):
        return asyncio.get_running_loop().run_in_executor(threads, function, *arguments)

    def end(self):
        """Answer the requests that are under way with an error."""
        self.draining = True
        self.deadlines.end()
        if self._following is not None:
            self._following.cancel()
        for engine in self._engines:
            engine.close()
            engine.abort_all()

    async def stop(self):
        """End the threads. Requests that are under way are dropped."""
        self.end()
        for engine in self._engines:
            await engine.join()
        self._tokenizing.shutdown()
        self._scoring.shutdown(cancel_futures=True)

    @property
    def _engines(self):
        engines = *self._old_engines, self._engine
        return [engine for engine in engines if engine is not None]

    @property
    def iteration(self) -> int | None:
        """The iteration of the run that is served, or `None`."""
        return None if self._run is None else self._run.iteration

    @property
    def failure(self) -> BaseException | None:
        """Why the engine has ended, or `None`."""
        return None if self._engine is None else self._engine.failure

    # === Limits ===

    @contextlib.contextmanager
    def admit(self, request: ApiRequest) -> Iterator[None]:
        """A context in which the completions of a request count as unfinished.

        Raises:
            ApiError: if it asks for another model or for too much, too many others
                wait, or the server stops.
        """
        if request.model != self.name:
            raise self.no_model(request.model)
        self.check_open()
        count = request.n * max(len(request.prompts), 1)
        most = self.config.slots + self.config.max_waiting
        if count > most:
            rule = f"at most {most} completions a request, over all its prompts"
            raise bad_field("n", rule, count)
        if self.unfinished + count > most:
            raise ApiError(
                429,
                f"{self.unfinished} completions are under way or wait, the limit is "
                f"{most}. Try again later.",
                code="too_many_waiting",
                retry_after=1,
            )
        self._count(count)
        try:
            yield
        finally:
            self._count(-count)

    def no_model(self, name: str) -> ApiError:
        """The error of a request for another model."""
        message = f"There is no model {name[:100]!r}. Expected {self.name!r}."
        return ApiError(404, message, param="model", code="model_not_found")

    def check_open(self):
        """Check that requests are accepted.

        Raises:
            ApiError: if the server stops, or its engine has failed.
        """
        if self.failure is not None:
            raise ApiError(503, "The engine has failed.", code="engine_failed")
        if self.draining or self._engine is None:
            raise stopping()

    def _count(self, more):
        self.unfinished += more
        running = min(self.unfinished, self.config.slots)
        self.metrics.running.set(running)
        self.metrics.waiting.set(self.unfinished - running)

    # === Prompts ===

    async def prompts(self, request: ApiRequest) -> list[Prompt]:
        """The prompts of a request, with log-probabilities if they are echoed.

        Raises:
            ApiError: see `PromptReader.read`.
        """
        prompts = await self._in(self._tokenizing, self.reader.read, request)
        self.metrics.prompt_tokens.inc(sum(len(x.token_ids) for x in prompts))
        if request.echo and request.log_probs is not None:
            for prompt in prompts:
                scores = await self._in(
                    self._scoring, self._scorer.score, prompt.token_ids
                )
                prompt.log_probs, prompt.top_log_probs = scores
        return prompts

    async def tokenize(self, text: str, *, add_start_token: bool) -> list[int]:
        """Token ids of a text, see `tokenize_prompts`."""
        tokenize = self.reader.tokenize
        return (await self._in(self._tokenizing, tokenize, [text], add_start_token))[0]

    # === Completions ===

    def submit(self, request: ApiRequest, prompts: list[Prompt]) -> Job:
        """Start the completions of a request.

        Their indices are those of OpenAI: `n` of the first prompt, `n` of the second.

        Args:
            request: `max_tokens` is not 0.
            prompts: What `prompts` returned.

        Returns:
            A `Job`, to be aborted in the end.
        """
        seed = secrets.randbits(64) if request.seed is None else request.seed % 2**64
        requests = []
        for i, prompt in enumerate(prompts):
            settings = RequestSettings(
                max_new_tokens=self._limit(request, prompt),
                temperature=request.temperature,
                top_p=request.top_p,
                top_log_probs=bool(request.log_probs),
            )
            for number in range(request.n):
                sample = SampleRequest(
                    prompt=tuple(prompt.token_ids),
                    name=f"prompt {i}",
                    seed=(seed >> 32, seed % 2**32, i, number),
                    log_probs=request.log_probs is not None,
                )
                requests.append((sample, settings))
        return self._engine.submit(
            requests, stop=self.reader.stop(request), report=request.stream
        )

    def _limit(self, request, prompt):
        """The most new tokens of a completion."""
        if request.max_tokens is not None:
            return request.max_tokens
        room = min(self.max_new_tokens, self.max_length - len(prompt.token_ids))
        return min(room, request.default_tokens or room)

    async def choices(self, request: ApiRequest, prompts: list[Prompt]) -> list[Choice]:
        """All completions of a request, in the order of their indices."""
        count = request.n * len(prompts)
        if request.max_tokens == 0:
            empty = Completion(text="", num_tokens=0, finish_reason="length")
            return [Choice(i, empty) for i in range(count)]
        found, job = [], self.submit(request, prompts)
        try:
            async for index, completion in job:
                self.metrics.completion_tokens.inc(completion.num_tokens)
                found.append(Choice(index, completion))
        finally:
            job.abort()
        return sorted(found, key=lambda choice: choice.index)
