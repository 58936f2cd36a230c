// The PTX instructions that are emulated, as defined in NVIDIA's "Parallel Thread Execution ISA".
#include <dimorph/dtype.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <string>
#include <vector>

#include "runtime.h"

namespace emulator {
namespace {

// One lane's part of an instruction that all lanes of a warp execute together; `whole` gets the parts of all lanes.
struct Lane {
  const Instruction* instruction;
  Operand* operands;

  template <typename T>
  T in(int i) const {
    return instruction->in<T>(operands, i);
  }
  template <typename T>
  void out(int i, T value) const {
    instruction->out(operands, i, value);
  }
};
template <void (*whole)(const Lane* lanes)>
void together(const Instruction& instruction, Operand* operands) {
  Lane own{&instruction, operands};
  warp_collective(instruction.site(), ~0u, &own, [](void* const* brought) {
    Lane lanes[32];
    for (int i = 0; i < 32; ++i) lanes[i] = *static_cast<const Lane*>(brought[i]);
    whole(lanes);
  });
}

template <typename T>
float number(uint16_t bits) {
  T value;
  memcpy(&value, &bits, sizeof value);
  return static_cast<float>(value);
}

template <typename T>
uint16_t bits(float value) {
  const T rounded(value);
  uint16_t result;
  memcpy(&result, &rounded, sizeof result);
  return result;
}

// cp.async [to], [from], bytes, present
void copy_async(const Instruction& instruction, Operand* operands) {
  const auto bytes = instruction.in<int64_t>(operands, 2), present = int64_t{instruction.in<uint32_t>(operands, 3)};
  const auto from = instruction.in<const void*>(operands, 1);
  void* to = shared_pointer(instruction.in<uint32_t>(operands, 0), bytes, instruction.site());
  if (present > bytes || reinterpret_cast<uintptr_t>(from) % bytes != 0)
    fail("cp.async: %lld of %lld bytes from %p", static_cast<long long>(present), static_cast<long long>(bytes), from);
  start_copy(to, from, bytes, present);
}
void copy_wait(const Instruction&, Operand*) { land_copies(); }

// ldmatrix {d0, d1, d2, d3}, [row]: lane 8 i + r gives the address of row r of the i-th 8x8 matrix. A lane gets in d_i
// the element (lane / 4, 2 (lane % 4)) of that matrix, or of its transpose, and the one after it.
template <bool transposed>
void load_matrices(const Lane* lanes) {
  const uint16_t* rows[32];
  for (int i = 0; i < 32; ++i)
    rows[i] = static_cast<const uint16_t*>(shared_pointer(lanes[i].in<uint32_t>(4), 16, lanes[i].instruction->site()));
  for (int lane = 0; lane < 32; ++lane)
    for (int matrix = 0; matrix < 4; ++matrix) {
      uint32_t pair = 0;
      for (int e = 0; e < 2; ++e) {
        const int row = lane / 4, column = lane % 4 * 2 + e;
        const uint32_t element = transposed ? rows[8 * matrix + column][row] : rows[8 * matrix + row][column];
        pair |= element << 16 * e;
      }
      lanes[lane].out(matrix, pair);
    }
}

// mma.m16n8k16 {d0 .. d3}, {a0 .. a3}, {b0, b1}, {c0 .. c3}. With group = lane / 4 and place = lane % 4, a lane has
//   of A (16x16): pairs of columns 2 place (+ 8 in a2 and a3), rows group (+ 8 in a1 and a3);
//   of B (16x8): pairs of rows 2 place (+ 8 in b1), column group;
//   of C and D (16x8): columns 2 place and the next, rows group (+ 8 in c2 and c3).
template <typename T>
void multiply_add(const Lane* lanes) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, place = lane % 4;
    for (int e = 0; e < 2; ++e) {
      for (int i = 0; i < 4; ++i)
        a[group + i % 2 * 8][place * 2 + i / 2 * 8 + e] = number<T>(lanes[lane].in<uint32_t>(4 + i) >> 16 * e);
      for (int i = 0; i < 2; ++i)
        b[place * 2 + i * 8 + e][group] = number<T>(lanes[lane].in<uint32_t>(8 + i) >> 16 * e);
    }
  }
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      float sum = lanes[lane].in<float>(10 + i);
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      lanes[lane].out(i, sum);
    }
}

// cvt.rn d, a, b: a becomes the upper half.
template <typename T>
void convert_pair(const Instruction& instruction, Operand* operands) {
  const uint32_t high = bits<T>(instruction.in<float>(operands, 1)), low = bits<T>(instruction.in<float>(operands, 2));
  instruction.out(operands, 0, high << 16 | low);
}

// cvt.rn.f16x2.e4m3x2 d, a: the lower byte becomes the lower half.
void convert_e4m3(const Instruction& instruction, Operand* operands) {
  const auto both = instruction.in<uint16_t>(operands, 1);
  uint32_t result = 0;
  for (int e = 0; e < 2; ++e) {
    const int byte = both >> 8 * e & 0xff, exponent = byte >> 3 & 15, mantissa = byte & 7;
    float value = exponent ? ldexpf(1.f + mantissa / 8.f, exponent - 7) : ldexpf(mantissa / 8.f, -6);
    if ((byte & 0x7f) == 0x7f) value = NAN;
    result |= static_cast<uint32_t>(bits<half>(byte & 0x80 ? -value : value)) << 16 * e;
  }
  instruction.out(operands, 0, result);
}
// fma.rn.f16x2 d, a, b, c
void multiply_add_halves(const Instruction& instruction, Operand* operands) {
  uint32_t result = 0;
  for (int e = 0; e < 2; ++e) {
    float of[3];
    for (int i = 0; i < 3; ++i) of[i] = number<half>(instruction.in<uint32_t>(operands, 1 + i) >> 16 * e);
    result |= static_cast<uint32_t>(bits<half>(of[0] * of[1] + of[2])) << 16 * e;
  }
  instruction.out(operands, 0, result);
}
void convert_half(const Instruction& instruction, Operand* operands) {
  instruction.out(operands, 0, number<half>(instruction.in<uint16_t>(operands, 1)));
}

float flushed(float x) { return fabsf(x) < FLT_MIN ? copysignf(0.f, x) : x; }
template <float (*function)(float)>
void approximate(const Instruction& instruction, Operand* operands) {
  instruction.out(operands, 0, flushed(function(flushed(instruction.in<float>(operands, 1)))));
}
float reciprocal(float x) { return 1.f / x; }

void nothing(const Instruction&, Operand*) {}
void unknown(const Instruction& instruction, Operand*) {
  fail("PTX that is not emulated: %s (%s:%d)", instruction.site().what, instruction.site().file,
       instruction.site().line);
}

const struct {
  const char* name;
  void (*run)(const Instruction&, Operand*);
} kInstructions[] = {
    {"cp.async.cg.shared.global.L2::128B", copy_async},
    {"cp.async.wait_all", copy_wait},
    {"ldmatrix.sync.aligned.m8n8.x4.shared.b16", together<load_matrices<false>>},
    {"ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", together<load_matrices<true>>},
    {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", together<multiply_add<bfloat16>>},
    {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", together<multiply_add<half>>},
    {"cvt.rn.bf16x2.f32", convert_pair<bfloat16>},
    {"cvt.rn.f16x2.f32", convert_pair<half>},
    {"cvt.rn.f16x2.e4m3x2", convert_e4m3},
    {"cvt.f32.f16", convert_half},
    {"fma.rn.f16x2", multiply_add_halves},
    {"ex2.approx.ftz.f32", approximate<exp2f>},
    {"lg2.approx.ftz.f32", approximate<log2f>},
    {"rcp.approx.ftz.f32", approximate<reciprocal>},
    {"griddepcontrol.wait", nothing},
    {"griddepcontrol.launch_dependents", nothing},
};

// Returns the instructions of a text, without the lines that only put one that waits into a loop.
std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> result;
  for (size_t at = 0, end; at < text.size(); at = end + 1) {
    end = std::min(text.find_first_of(";\n", at), text.size());
    const std::string line = text.substr(at, end - at);
    const bool frame = line.empty() || line == "{" || line == "}" || line[0] == '@' || line[0] == '.';
    if (!frame && line.back() != ':') result.push_back(line);
  }
  return result;
}

// Returns a copy of the elements that is never freed.
template <typename T>
const T* copied(const std::vector<T>& elements) {
  return std::copy(elements.begin(), elements.end(), new T[elements.size()]) - elements.size();
}

}  // namespace

Instruction::Instruction(const char* text, const char* file, int line) : site_{text, file, line}, run_(unknown) {
  std::string rest, predicate;
  int predicate_of = -1;
  for (const std::string& line : lines(text)) {
    char name[32];
    if (sscanf(line.c_str(), "setp.ne.b32 %31[^,], %%%d, 0", name, &predicate_of) == 2) {
      predicate = name;
    } else if (!rest.empty()) {
      return;  // several instructions are not emulated
    } else {
      rest = line;
    }
  }
  if (rest.empty()) {
    run_ = nothing;
    return;
  }
  const std::string name = rest.substr(0, rest.find(' '));
  std::vector<int> index;
  std::vector<int64_t> literals;
  const auto end_of = [&](size_t from) { return std::min(rest.find_first_of(",]} ", from), rest.size()); };
  for (size_t at = name.size(); at < rest.size(); at = end_of(at) + 1) {
    at = rest.find_first_not_of(" ,[]{}", at);
    if (at == std::string::npos) break;
    const std::string word = rest.substr(at, end_of(at) - at);
    if (word == "_" || word == "done") continue;  // results that are unused, or used by the loop only
    const bool literal = word[0] != '%' && word != predicate;
    if (literal && !strchr("0123456789", word[0])) return;
    const int number = word == predicate ? predicate_of : atoi(&word[!literal]);
    index.push_back(literal ? -1 : number);
    literals.push_back(number);
    if (!literal) statement_count_ = std::max(statement_count_, number + 1);
  }
  count_ = static_cast<int>(index.size());
  index_ = copied(index);
  literal_ = copied(literals);
  if (const Run found = find_hopper(name.c_str(), count())) {
    run_ = found;
    site_.what = strdup(name.c_str());
    return;
  }
  for (const auto& one : kInstructions)
    if (name == one.name) {
      run_ = one.run;
      site_.what = one.name;
    }
}

}  // namespace emulator
