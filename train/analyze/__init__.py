"""What is inside a trained model: python -m train.analyze"""
