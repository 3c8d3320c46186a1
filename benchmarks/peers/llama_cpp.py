"""llama.cpp: batches of sequences behind one prefix, which is computed once."""

import ctypes
import json
import os
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from safetensors.numpy import load_file

from benchmarks.peers import LONGEST_COMPLETION, LONGEST_QUESTION

_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def write_gguf(directory):
    """Write the Llama of a Hugging Face directory as float32 GGUF, without tokens.

    Args:
        directory: A directory of transformers.

    Returns:
        The path of the file.
    """
    config = json.loads(Path(directory, "config.json").read_text())
    heads = config["num_attention_heads"]
    key_heads = config["num_key_value_heads"]
    path = str(Path(directory, "model.gguf"))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config.get("max_position_embeddings", 2048))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config.get("rope_parameters", config)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    for file in sorted(Path(directory).glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            if "q_proj" in name:
                tensor = _neighbours(tensor, heads)
            elif "k_proj" in name:
                tensor = _neighbours(tensor, key_heads)
            writer.add_tensor(_name(name), np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _name(name):
    if name in _OUTER:
        return _OUTER[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest.removesuffix('.weight')]}.weight"


def _neighbours(kernel, heads):
    """Rows of a pair of rotary positions side by side, instead of half a head apart."""
    halves = kernel.reshape(heads, 2, -1, kernel.shape[-1])
    return halves.swapaxes(1, 2).reshape(kernel.shape)


def make_sampler(directory, prefix, questions, batch_size):
    """Greedy decoding of `batch_size` sequences; a free one takes the next question.

    Weights and caches are float32. Sequence 0 holds the prefix. The others share its
    cells of the unified cache. Each query meets the cells of all sequences, so that
    more than 16 of them are slower; a cache for each sequence is slower, too.

    Args:
        directory: A directory of transformers with a Llama.
        prefix: Token ids of the shared prefix.
        questions: Token ids of each question.
        batch_size: Most sequences at a time; 16 at most are used.
    """
    batch_size = min(batch_size, 16)
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        write_gguf(directory).encode(), llama_cpp.llama_model_default_params()
    )
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = len(prefix) + batch_size * (LONGEST_QUESTION + LONGEST_COMPLETION)
    settings.n_batch = settings.n_ctx
    settings.n_seq_max = batch_size + 1
    settings.kv_unified = True
    settings.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
    settings.type_k = settings.type_v = llama_cpp.GGML_TYPE_F32
    settings.n_threads = settings.n_threads_batch = len(os.sched_getaffinity(0))
    context = llama_cpp.llama_init_from_model(model, settings)
    memory = llama_cpp.llama_get_memory(context)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(settings.n_batch, 0, 1)

    def decode(tokens):
        """Most likely next tokens of `(sequence, position, token, wanted)`."""
        batch.n_tokens = len(tokens)
        for row, (sequence, position, token, wanted) in enumerate(tokens):
            batch.token[row] = token
            batch.pos[row] = position
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = sequence
            batch.logits[row] = wanted
        if llama_cpp.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed.")
        rows = sum(wanted for *_, wanted in tokens)
        logits = ctypes.cast(
            llama_cpp.llama_get_logits(context),
            ctypes.POINTER(ctypes.c_float * (rows * vocabulary)),
        )
        return np.frombuffer(logits.contents, "float32").reshape(rows, -1).argmax(-1)

    def sample(count):
        llama_cpp.llama_memory_clear(memory, True)
        if prefix:
            last = len(prefix) - 1
            decode([(0, i, token, i == last) for i, token in enumerate(prefix)])
        waiting = list(enumerate(questions[:count]))[::-1]
        free = list(range(1, batch_size + 1))
        active = {}  # sequence: (index of the question, position, completion)
        while waiting or active:
            tokens, order = [], []
            for sequence, (_, position, completion) in active.items():
                tokens.append((sequence, position, completion[-1], True))
                order.append(sequence)
            while waiting and free:
                sequence = free.pop()
                i, question = waiting.pop()
                llama_cpp.llama_memory_seq_rm(memory, sequence, -1, -1)
                llama_cpp.llama_memory_seq_cp(memory, 0, sequence, -1, -1)
                for k, token in enumerate(question):
                    last = k + 1 == len(question)
                    tokens.append((sequence, len(prefix) + k, token, last))
                active[sequence] = [i, len(prefix) + len(question) - 1, []]
                order.append(sequence)
            done = []
            for sequence, token in zip(order, decode(tokens).tolist(), strict=True):
                state = active[sequence]
                state[1] += 1
                state[2].append(token)
                if token == 0 or len(state[2]) == LONGEST_COMPLETION:
                    del active[sequence]
                    free.append(sequence)
                    done.append((state[0], state[2]))
            if done:
                yield done

    return sample
