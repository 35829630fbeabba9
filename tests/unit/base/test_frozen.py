from functools import cached_property

from ftbench.base.frozen import FrozenModel


class Square(FrozenModel):
    side: int

    @cached_property
    def area(self):
        return self.side**2


def test_a_copy_works_out_its_own_values():
    square = Square(side=3)
    assert square.area == 9
    assert square.model_copy(update={"side": 4}).area == 16
    assert square.model_copy().area == 9
