// Calls functions with arguments and results of every kind; pieces.rs prints the same lines.
#include <pieces/arguments.h>
#include <pieces/failures.h>
#include <pieces/names.h>
#include <pieces/pick.h>
#include <pieces/tasks.h>
#include <pieces/weighted.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace {

// Calls a function that must fail, and prints its error, thrown or not.
template <typename Throwing, typename Quiet>
void fails(Throwing throwing, Quiet quiet) {
  dimorph::Status status;
  quiet(status);
  try {
    throwing();
    std::printf("no error\n");
  } catch (const dimorph::Error& error) {
    const bool same = error.code() == status.code && error.what() == status.text;
    std::printf("%d %s%s\n", error.code(), error.what(), same ? "" : ", but thrown and returned differ");
  }
}
#define FAILS(function, ...) \
  fails([&] { pieces::function(__VA_ARGS__); }, [&](dimorph::Status& status) { pieces::function(__VA_ARGS__, status); })

std::string text(const std::optional<int64_t>& number) { return number ? std::to_string(*number) : "none"; }

}  // namespace

int main() {
  std::printf("%lld %lld %g %g %d\n", static_cast<long long>(pieces::echo_int8(-5)),
              static_cast<long long>(pieces::echo_uint32(4000000000u)), pieces::echo_double(0.1),
              pieces::echo_float(0.5f), pieces::echo_bool(true));
  std::printf("%s|%s|%d\n", pieces::echo_str("a text of more than seven bytes").c_str(), pieces::literal().c_str(),
              static_cast<int>(pieces::size_of_str("four")));
  std::printf("%d %d\n", pieces::echo_dtype(dimorph::bfloat16).code,
              static_cast<int>(pieces::device_type(dimorph::cuda(1))));
  std::printf("%s %s\n", text(pieces::echo_optional(7)).c_str(), text(pieces::echo_optional()).c_str());
  std::printf("%d %d %d\n", static_cast<int>(pieces::trailing(1)), static_cast<int>(pieces::trailing(1, 2)),
              static_cast<int>(pieces::trailing(1, std::nullopt, "abc")));
  const auto [number, half, words, positive, none] = pieces::several(3);
  std::printf("%d %g %s %d %s\n", static_cast<int>(number), half, words.c_str(), positive, text(none).c_str());

  const std::vector<float> x{1, 2, 3};
  const dimorph::OwnedTensor y = pieces::doubled({x.data(), {3}});
  std::printf("%g %g %g\n", y.data<float>()[0], y.data<float>()[1], y.data<float>()[2]);
  const std::vector<double> grid{1, 2, 3, 4, 5, 6};
  const auto column = dimorph::ConstTensorView::of(grid.data(), dimorph::dtype_of<double>(), {3}, {2});
  std::printf("%s %g\n", pieces::describe(column).c_str(), pieces::sum(column));
  std::printf("%d %d\n", static_cast<int>(pieces::optional_size()),
              static_cast<int>(pieces::optional_size(dimorph::ConstTensorView(x.data(), {3}))));

  const std::vector<float> ones(4, 1.0f);
  const std::vector<int32_t> pairs(6);
  std::printf("%g\n", pieces::weighted({ones.data(), {4}}, 3, 2, {ones.data(), {4}}));
  std::printf("%g\n", pieces::weighted({ones.data(), {4}}, 3, 2, {ones.data(), {4}},
                                       dimorph::ConstTensorView(pairs.data(), {3, 2})));
  FAILS(weighted, {ones.data(), {4}}, 3, 2, {ones.data(), {2, 2}}, std::nullopt, std::nullopt);

  for (int64_t kind = 0; kind < 10; ++kind) FAILS(raise_in_entry, kind);
  for (int64_t kind : {0, 4, 6}) FAILS(raise_in_case, 2, kind);
  FAILS(raise_in_case, 3, 0);
  std::printf("%d %d %d\n", static_cast<int>(pieces::pick(1, 1)), static_cast<int>(pieces::pick(1, 2)),
              static_cast<int>(pieces::pick(2, 1)));
  FAILS(pick, 2, 2);
  std::printf("%d %d %d\n", static_cast<int>(pieces::cuda(1, 2)), static_cast<int>(pieces::text_of(1, 2, 3)),
              static_cast<int>(pieces::outcome(2, 3, 4)));
  FAILS(doubled, {x.data(), {3, 1}});
  FAILS(echo_str, nullptr);

  std::vector<int64_t> ran(1), marks(200);
  pieces::busy({ran.data(), {1}}, 1, 50, 0);
  std::printf("%d\n", static_cast<int>(ran[0]));
  for (int64_t kind = 0; kind < 5; ++kind) FAILS(failing, {ran.data(), {1}}, 1, 20, 7, kind);
  pieces::runs({marks.data(), {200}}, 1, 1, 100000);
  std::printf("%s\n", *std::max_element(marks.begin(), marks.end()) > 1 ? "several threads" : "one thread");
}
