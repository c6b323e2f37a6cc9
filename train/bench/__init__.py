"""How fast is it? python -m train.bench"""
