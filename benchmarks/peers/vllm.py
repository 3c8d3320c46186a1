"""vLLM on CPU: continuous batching, and a cache of shared prefixes."""

import os

# It leaves a core to other processes unless told otherwise.
os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, os.sched_getaffinity(0)))

from vllm import LLM, SamplingParams

from benchmarks.peers import LONGEST_COMPLETION, LONGEST_QUESTION


def make_sampler(directory, prefix, questions, batch_size):
    """Greedy `LLM.generate` in float32, with prefix caching.

    Args:
        directory: A directory of transformers.
        prefix: Token ids of the shared prefix.
        questions: Token ids of each question.
        batch_size: Most sequences at a time.
    """
    engine = LLM(
        model=str(directory),
        skip_tokenizer_init=True,
        dtype="float32",
        gpu_memory_utilization=0.3,  # of the machine's memory
        enable_prefix_caching=True,
        max_num_seqs=batch_size,
        max_model_len=len(prefix) + LONGEST_QUESTION + LONGEST_COMPLETION + 1,
    )
    greedy = SamplingParams(
        temperature=0,
        max_tokens=LONGEST_COMPLETION,
        stop_token_ids=[0],
        detokenize=False,
    )

    def sample(count):
        # The questions of an earlier run shall not be in the cache.
        engine.reset_prefix_cache()
        prompts = [{"prompt_token_ids": prefix + question} for question in questions]
        outputs = engine.generate(prompts[:count], greedy, use_tqdm=False)
        yield [(i, list(x.outputs[0].token_ids)) for i, x in enumerate(outputs)]

    return sample
