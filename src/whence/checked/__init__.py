"""What a user passes, checked: the one place where it becomes numbers.

`@checked` above a public function, or above a class of options, reads the types in its signature,
turns what comes into them (a NumPy integer into an `int`, a tensor of one number into a `float`, a
list into a tuple) and raises `InvalidInput` for what is none. `arrays` does the same for data,
targets, weights and positions, of which only the model knows how many there must be.
"""

from whence.checked.arrays import Bool as Bool
from whence.checked.arrays import Float as Float
from whence.checked.arrays import array as array
from whence.checked.arrays import booleans as booleans
from whence.checked.arrays import floats as floats
from whence.checked.arrays import labels as labels
from whence.checked.arrays import plain as plain
from whence.checked.arrays import positions as positions
from whence.checked.arrays import unstacked as unstacked
from whence.checked.arrays import weights as weights
from whence.checked.scalars import real as real
from whence.checked.scalars import said as said
from whence.checked.scalars import shown as shown
from whence.checked.scalars import whole as whole
from whence.checked.signatures import checked as checked
from whence.checked.signatures import converted as converted
from whence.checked.targets import class_positions as class_positions
from whence.checked.targets import finite_numbers as finite_numbers
from whence.checked.written import written as written
