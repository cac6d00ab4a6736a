"""The program with Treadle, and a parameter that grows."""

from problem import GROW_AT, new_rows
from with_treadle import Digits, main


class Growing(Digits):
    def post_step(self, batch, outputs):
        if self.progress.step == GROW_AT:
            with self.edit_rows({"rows": self.model.rows}) as edit:
                edit.append({"rows": new_rows()})


if __name__ == "__main__":
    main(Growing)
