"""A data set in which some samples are shifted, with vectors of each role."""

import numpy as np

ROLES = ("image", "query", "response", "reference")
FIELDS = {role: f"{role}_vector" for role in ROLES}


def shifted_samples(folder="/nowhere"):
    """60 samples tagged "clean", 60 tagged "mild" and 60 tagged "strong", with vectors of each role.

    Half of the strong ones are shifted, which their ``shifted`` says.
    """
    import fiftyone as fo

    rng = np.random.default_rng(0)
    dataset = fo.Dataset()
    samples = []
    for tag, shift in (("clean", 0.0), ("mild", 0.5), ("strong", 4.0)):
        for number in range(60):
            shifted = tag != "clean" and number % 2 == 0
            vectors = {role: rng.normal(size=6) for role in ROLES}
            vectors["response"] = vectors["reference"] + rng.normal(size=6) * (0.2 + shift * shifted)
            for role in ("image", "query"):
                vectors[role][0] += shift * shifted
            samples.append(
                fo.Sample(
                    filepath=f"{folder}/{tag}-{number}.png",
                    tags=[tag],
                    shifted=shifted,
                    question=f"What is {number}?",
                    **{FIELDS[role]: vector.tolist() for role, vector in vectors.items()},
                )
            )
    dataset.add_samples(samples)
    return dataset
