"""GGUF: llama.cpp's converter and quantizer, and its library to load what they made. Needs the extra `codetune[gguf]`;
files of 16 bits need one of the extras `codetune[gguf]` and `codetune[serve]`.

converter   a model's folder → a GGUF file, by llama.cpp's own converter in a process of its own (`child`)
library     llama.cpp as `llama-cpp-python` brings it: quantizing, and whether it is there
loaded      a GGUF file as llama.cpp reads it: token ids, logits, what it says of itself
server      llama.cpp's server as `xllamacpp` brings it: what `codetune serve` runs, and what it makes of a file
vocabulary  what has to be in a file about the tokenizer, and what is

The converter is no part of any package: `llama-cpp-python` has it in its source distribution alone. So it comes with
codetune, in `third_party/llama.cpp`, unchanged, of the version that its README names. Nothing is fetched when it runs.
"""
