"""A sampler that follows a script instead of a model."""

from collections.abc import Callable

from star_keras.sampling import Completion, Sampler, SampleRequest


class ScriptedSampler(Sampler):
    """Completes each prompt with the text that a function returns.

    Stands in for a model that can do something, which takes minutes to train.

    Args:
        script: Callable `SampleRequest -> text`.
        batch_size: Completions a batch.

    Attributes:
        prompts: All prompts so far.

    Example:
    ```python
    sampler = ScriptedSampler(lambda request: " The answer is 4.")
    ```
    """

    def __init__(self, script: Callable[[SampleRequest], str], batch_size: int = 5):
        self.script = script
        self.batch_size = batch_size
        self.prompts: list[str] = []

    def sample(self, requests, *, stop=()):
        for start in range(0, len(requests), self.batch_size):
            batch = []
            for i, request in enumerate(requests[start:][: self.batch_size], start):
                self.prompts.append(request.prompt)
                text = self.script(request)
                completion = Completion(
                    text=text, num_tokens=len(text), finish_reason="stop"
                )
                batch.append((i, completion))
            yield batch
