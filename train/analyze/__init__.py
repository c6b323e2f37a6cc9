"""What a trained model looks at: python -m train.analyze"""
