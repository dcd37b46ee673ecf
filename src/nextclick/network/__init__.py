"""Neural recommenders: few parts (encoder, item table, loss, batches) under one trainer.

The modules that hold parts import PyTorch when they are imported; those that hold recommenders
(``recommender``, ``narm``, ``stamp``) import the parts when they fit or answer.
"""
