"""Linear regression in context by linear self-attention: python -m train.icl"""
