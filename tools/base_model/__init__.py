"""The parts of `tools/build_base_model.py`: corpus, tokenizer, windows, training, evaluation, model card."""
