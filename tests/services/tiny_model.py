"""Make a random 3M-parameter Qwen2 with tokenizer and chat template: enough to run the real vLLM on a CPU. Takes five seconds.

    tiny_model.py OUT_FOLDER SEED

Run by the `vllm` fixture with vLLM's own Python (needs torch and transformers). Another seed is another model: it says other things.
"""

import sys
import sysconfig
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

CONTEXT = 2048
VOCABULARY = 8000
CORPUS_FILES = 150

CHAT_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] or '' }}"
    "{% if message['tool_calls'] %}{{ message['tool_calls'] | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, trained on this Python's own library."""
    corpus = sorted(str(file) for file in Path(sysconfig.get_path("stdlib")).glob("*.py"))[:CORPUS_FILES]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train(corpus, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False))
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=CONTEXT, **ends)
    made.chat_template = CHAT_TEMPLATE
    return made


def model(tokens: int, seed: int) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=tokens,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(config).to(torch.bfloat16)


def make(out: Path, seed: int) -> None:
    """Write the whole folder, or none of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        made = Path(scratch) / "model"
        words = tokenizer()
        words.save_pretrained(made)
        model(len(words), seed).save_pretrained(made)
        made.rename(out)


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]))
