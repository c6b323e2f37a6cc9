"""Models: operations and layers composed by hand, forward downwards, backward upwards.

    params = model.init(rng)                           # nested dict of host arrays
    noise = model.noise(rng, batch)                    # dropout masks, to be merged into the batch
    loss, back = model.loss(params, batch, total)      # batch: name -> array, leading axis B
    back(grads)                                        # ADDS the gradient to grads' views
    outputs = model.predict(params, batch)
    total = model.count_targets(batch)                 # how many targets the batch's loss is over
    size = model.activation_size(batch)                # numbers in one layer's array, per example
    batch = model.trim_padding(batch)                  # without columns that are padding only

Operations and layers return their gradients. Only a model accumulates them, as soon as a layer has
returned its own, so no second copy of all gradients exists: a weight that is used twice, or a batch
in shards, is one visible `add(grads, ...)`. Parts of a model that hold many layers do the same:
their backward pass is `back(dy, grads)`.
"""
