"""A machine with a component in it, twice as a part and once as a base class."""

from raftkv import Component, Part, StateMachine, Table, command, query


class Marks(Component):
    marks = Table(str, int)

    @command
    def mark(self, key: str, by: int = 1) -> int:
        count = self.marks.get(key, 0) + by
        self.marks[key] = count
        return count

    @query
    def marked(self, key: str) -> bool:
        return key in self.marks


class Whole(StateMachine):
    left = Part(Marks)
    right = Part(Marks)

    @command
    def both(self, key: str) -> int:
        return self.left.mark(key) + self.right.mark(key, 2)


class Mixed(Marks):
    pass
