"""A task of ten lines."""

from star_keras.tasks import FewShotExample, Problem, Task


class Doubling(Task):
    """Asks for twice a number; the problem classes are `"even"` and `"odd"`.

    Args:
        train: Number of training problems: 0, 1, 2 and so on.
        held_out: Number of held-out problems: 100, 101, 102 and so on.
    """

    name = "doubling"
    few_shot_examples = (
        FewShotExample(
            problem=Problem(id="shown", question="What is twice 50?", answer="100"),
            rationale="50 + 50 = 100.",
        ),
    )

    def __init__(self, train: int = 24, held_out: int = 6):
        self._ranges = {
            "train": range(train),
            "eval": range(100, 100 + held_out),
        }

    def problems(self, split):
        return [
            Problem(
                id=f"double-{n}",
                question=f"What is twice {n}?",
                answer=str(2 * n),
                problem_class="odd" if n % 2 else "even",
            )
            for n in self._ranges[split]
        ]
