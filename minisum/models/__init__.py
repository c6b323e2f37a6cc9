"""Models: operations composed by hand, forward downwards, backward upwards.

    arrays = model.init(rng)                           # name -> host array
    noise = model.noise(rng, batch)                    # dropout masks, to be merged into the batch
    loss, back = model.loss(params, batch, total)      # batch: name -> array, leading axis B
    back(grads)                                        # ADDS the gradient into grads' views
    outputs = model.predict(params, batch)
    total = model.count_targets(batch)                 # how many targets the batch's loss is over
    size = model.activation_size(batch)                # numbers in one layer's array, per example
    batch = model.trim_padding(batch)                  # without columns that are padding only

`back(grads)` is the only place that adds into gradients: a weight that is used twice, or a batch
that comes in pieces, is one visible `+=`.
"""
