"""What runs inside the sandbox: the standard library only, because nothing else of the host is visible there."""
