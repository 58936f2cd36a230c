// Calls a kernel for values that the package lacks, of both of its axes, which are built below the first argument.
#include <picks/pick.h>

#include <cstdio>

int main(int, char** arguments) {
  picks_on_missing(picks_build_missing, arguments[1]);
  const int64_t asked[][2] = {{5, 7}, {2, 7}, {5, 1}, {1, 2}, {6, 7}};
  for (const auto& [width, depth] : asked) std::printf("%d\n", static_cast<int>(picks::pick(width, depth)));
}
