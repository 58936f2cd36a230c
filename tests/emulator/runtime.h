// A GPU's way of running threads, on the CPU: blocks one after the other, each thread of a block a fiber, which runs
// until it has to wait for others. Whatever a GPU leaves open is decided for the worst: memory is poisoned, warps and
// lanes take their turns in a random order and run ahead as far as they may.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace emulator {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};
extern Dim3 threadIdx, blockIdx, blockDim, gridDim;

// A place in device code where threads meet.
struct Site {
  const char* what;
  const char* file;
  int line;
};

// Ends the launch with that error.
[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char* format, ...);

// Waits for all lanes of the warp; the last one then calls whole(lanes), where lanes[i] is what lane i brought.
void warp_collective(const Site& site, unsigned mask, void* own, void (*whole)(void* const* lanes));
// Waits for all threads of the block that have not ended; whether one of them voted so.
bool block_barrier(const Site& site, bool vote);

void* dynamic_shared();
void* static_shared(const void* id, size_t bytes);  // id: of the declaration
// Shared memory has addresses of 32 bits.
uint32_t shared_address(const void* pointer);
void* shared_pointer(uint32_t address, size_t bytes, const Site& site);

// A copy of this thread that is under way: it lands when the thread waits, and until then poison lies in its place.
void start_copy(void* to, const void* from, size_t bytes, size_t present);
void land_copies();

// Of an asm statement.
struct Operand {
  uint64_t value;
  void* output;
};
template <typename T>
inline Operand input(T value) {
  Operand operand{0, nullptr};
  __builtin_memcpy(&operand.value, &value, sizeof value);
  return operand;
}
template <typename T>
inline Operand output(T& place) {
  return {0, &place};
}

// One PTX instruction, as it stands in an asm statement.
class Instruction {
 public:
  explicit Instruction(const char* text, const char* file = __builtin_FILE(), int line = __builtin_LINE());
  void run(Operand* operands) const { run_(*this, operands); }

  // The instruction's own operands, in its order.
  template <typename T>
  T in(const Operand* operands, int i) const {
    T value;
    const Operand* operand = index_[i] < 0 ? nullptr : &operands[index_[i]];
    const void* place = !operand ? &literal_[i] : operand->output ? operand->output : &operand->value;
    __builtin_memcpy(&value, place, sizeof value);
    return value;
  }
  template <typename T>
  void out(const Operand* operands, int i, T value) const {
    __builtin_memcpy(operands[index_[i]].output, &value, sizeof value);
  }
  const Site& site() const { return site_; }

 private:
  static constexpr int kMost = 16;
  Site site_;
  void (*run_)(const Instruction&, Operand*);
  int index_[kMost];  // among those of the statement; -1: a literal
  int64_t literal_[kMost];
};

struct Kernel {
  void (*call)(void** args);
  const size_t* sizes;  // of its parameters
  size_t count;
  unsigned max_threads;
};

// Runs a kernel to its end. Null, or what went wrong.
const char* launch(const Kernel& kernel, Dim3 grid, Dim3 block, size_t shared_bytes, void** args);

}  // namespace emulator
