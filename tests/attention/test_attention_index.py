"""dm::Index, a key's index on the device: as an int it is that int, and cheap forms of it are the same."""

from __future__ import annotations

import subprocess
from pathlib import Path

import dimorph.attention as at

INCLUDES = [f"-I{path / 'include'}" for path in (Path(at.__file__).parent, Path(at.__file__).parents[1])]

PROGRAM = """
#include <dimorph/attention/index.h>
#include <cstdint>
#include <cstdio>
#include <type_traits>

int failed = 0;
void same(bool is, const char* what, int base, int step) {
  if (!is) ++failed, std::printf("%s at %d + %d\\n", what, base, step);
}
#define SAME(expression) same(expression, #expression, base, step)

int main() {
  constexpr int last = 9;
  for (int base = -3; base < 12; ++base)
    for (int step = 0; step < 8; ++step) {
      const dm::Index<1> k{base, step, last};
      const int plain = base + step, kept = plain < last ? plain : last;
      SAME(int(k) == kept && int(k + 5) == kept + 5 && int(5 + k) == kept + 5 && int(k - 5) == kept - 5);
      SAME(int(5 - k) == 5 - kept && int(7 - (5 - k)) == 7 - (5 - kept));
      SAME(uint32_t(k + 100) == uint32_t(kept + 100));
      SAME(float(k) == float(plain) && dm::math::to_float(5 - k) == float(5 - plain));
      // Whatever else is done with it, is done with the int.
      SAME(k * 3 == kept * 3 && k % 4 == kept % 4 && k - k == 0 && int64_t{1} + k == 1 + int64_t{kept});
      dm::Index<1> moved = k;
      moved += 7;
      moved -= 3;
      SAME(int(moved) == kept + 4 && dm::math::select(true, k, 3) == kept && dm::math::select(true, 3, k) == 3);
      if (plain > last) continue;  // what comparisons say there does not count
      constexpr int least = -2147483647 - 1, most = 2147483647;
      SAME(k <= most && k >= least && least < k && !(most <= k) && k - 100 <= most && 100 - k >= least && k != most);
      for (int other = -4; other < 14; ++other) {
        SAME((k < other) == (plain < other) && (k <= other) == (plain <= other) && (k > other) == (plain > other));
        SAME((k >= other) == (plain >= other) && (k == other) == (plain == other) && (k != other) == (plain != other));
        SAME((other < k) == (other < plain) && (other >= k) == (other >= plain) && (other == k) == (other == plain));
        SAME((other - k <= 2) == (other - plain <= 2) && (k + other > 3) == (plain + other > 3));
      }
    }
  static_assert(std::is_same<decltype(1 - dm::Index<1>{}), dm::Index<-1>>::value, "a difference the other way round");
  static_assert(std::is_same<decltype(dm::Index<1>{} == 1), bool>::value, "masks on the device are bools");
  std::printf("%d failed\\n", failed);
}
"""


def test_an_index_is_its_int(tmp_path: Path) -> None:
    source, program = tmp_path / "index.cc", tmp_path / "index"
    source.write_text(PROGRAM)
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", *INCLUDES, str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    done = subprocess.run([str(program)], check=True, capture_output=True, text=True)
    assert done.stdout == "0 failed\n"
