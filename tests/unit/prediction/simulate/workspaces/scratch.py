"""What tests ask of the steps of a kernel."""


def sizes(steps):
    """The bytes of what steps allocate, by name, once it is sure that the rest makes sense."""
    live, made = set(), {}
    for step in steps:
        if step.action == "allocate":
            assert step.name not in made
            assert step.nbytes > 0
            live.add(step.name)
            made[step.name] = step.nbytes
        elif step.action == "free":
            live.remove(step.name)
    assert not live
    return made
