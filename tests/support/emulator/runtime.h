// Runs the threads of a GPU on the CPU: blocks one after the other, each thread of a block as a fiber, which runs until
// it has to wait for others. Behaviour that a GPU leaves open is chosen to expose mistakes: memory is poisoned, warps
// and lanes run in a random order and as far ahead as they may.
#pragma once
#include <stddef.h>
#include <stdint.h>

// No header of the standard library is included: each kernel that a test compiles would take a fifth longer.

namespace emulator {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};
extern Dim3 threadIdx, blockIdx, blockDim, gridDim;

// A line of device code at which threads wait for each other.
struct Site {
  const char* what;
  const char* file;
  int line;
};

// Ends the launch with an error.
[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char* format, ...);

// Waits for all lanes of the warp; the last one then calls whole(lanes), where lanes[i] is the `own` of lane i.
void warp_collective(const Site& site, unsigned mask, void* own, void (*whole)(void* const* lanes));
// Waits for all threads of the block that have not ended; returns true if one of them voted true.
bool block_barrier(const Site& site, bool vote);

// Waits until ready(what).
void wait_until(const Site& site, bool (*ready)(const void* what), const void* what);
// A numbered barrier of the block: threads that have arrived, threads expected, and completed rounds.
struct Numbered {
  unsigned arrived = 0, threads = 0, round = 0;
};
Numbered& numbered_barrier(unsigned number);

constexpr int kPoison = 0xff;  // NaN in every floating point type, -1 in integers
void* dynamic_shared();
void* static_shared(const void* id, size_t bytes);  // id: identifies the declaration
// Addresses in shared memory have 32 bits.
uint32_t shared_address(const void* pointer);
void* shared_pointer(uint32_t address, size_t bytes, const Site& site);

// Asynchronous copies of this thread: they complete when the thread waits; until then the destination is poisoned.
void start_copy(void* to, const void* from, size_t bytes, size_t present);
void land_copies();

// An asynchronous copy of the block: it completes when no thread can go on without it.
struct BlockCopy {
  virtual ~BlockCopy() = default;
  virtual void land() = 0;
};
void start_block_copy(BlockCopy* copy);

// One lane's part of an asynchronous matrix product: it is computed when the warp waits for its group.
struct WarpProduct {
  virtual ~WarpProduct() = default;
  virtual void compute(WarpProduct* const* lanes) = 0;
  const void* sums = nullptr;  // the address of the lane's sums
  int group = 0;
};
void start_product(WarpProduct* product);
bool is_summing(const void* sums);  // true if a product of this thread that is under way adds to them
void end_product_group();
void finish_products(const Site& site, int groups_left);

// An operand of an asm statement.
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

// One PTX instruction of an asm statement.
class Instruction {
 public:
  explicit Instruction(const char* text, const char* file = __builtin_FILE(), int line = __builtin_LINE());
  void run(Operand* operands) const { run_(*this, operands); }

  // The i-th operand of the instruction; `operands` are those of the asm statement.
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
  int count() const { return count_; }
  // The number of operands of the asm statement.
  int statement_count() const { return statement_count_; }

 private:
  Site site_;
  void (*run_)(const Instruction&, Operand*);
  // Arrays of count() that are never freed, as instructions are static variables.
  const int* index_ = nullptr;  // position among the operands of the statement; -1: a literal
  const int64_t* literal_ = nullptr;
  int count_ = 0, statement_count_ = 0;
};
using Run = void (*)(const Instruction&, Operand*);
Run find_hopper(const char* name, int operand_count);  // null if there is no such instruction

struct Kernel {
  void (*call)(void** args);
  const size_t* sizes;  // the sizes of its parameters, in bytes
  size_t count;
  unsigned max_threads;
};

// Runs a kernel to its end. Returns null, or the error message.
const char* launch(const Kernel& kernel, Dim3 grid, Dim3 block, size_t shared_bytes, void** args);

}  // namespace emulator
