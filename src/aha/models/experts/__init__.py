"""The routed experts of a mixture-of-experts layer: the module, sorted slots, the products, other processes."""
