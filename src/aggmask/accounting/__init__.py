"""What a model needs before it is trained: parameters, operations, memory."""
