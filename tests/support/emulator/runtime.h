// A GPU's way of running threads, on the CPU: blocks one after the other, each thread of a block a fiber, which runs
// until it has to wait for others. Whatever a GPU leaves open is decided for the worst: memory is poisoned, warps and
// lanes take their turns in a random order and run ahead as far as they may.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <string>
#include <vector>

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

// Waits until ready(what).
void wait_until(const Site& site, bool (*ready)(const void* what), const void* what);
// A numbered barrier of the block: how many have arrived of how many, and how often all have.
struct Numbered {
  unsigned arrived = 0, threads = 0, round = 0;
};
Numbered& numbered_barrier(unsigned number);

constexpr int kPoison = 0xff;  // NaN in every floating point type, -1 in integers
void* dynamic_shared();
void* static_shared(const void* id, size_t bytes);  // id: of the declaration
// Shared memory has addresses of 32 bits.
uint32_t shared_address(const void* pointer);
void* shared_pointer(uint32_t address, size_t bytes, const Site& site);

// A copy of this thread that is under way: it lands when the thread waits, and until then poison lies in its place.
void start_copy(void* to, const void* from, size_t bytes, size_t present);
void land_copies();

// A copy that the block has begun: it lands when nobody can go on without it.
struct BlockCopy {
  virtual ~BlockCopy() = default;
  virtual void land() = 0;
};
void start_block_copy(BlockCopy* copy);

// One lane's part of a matrix product that is under way: it is computed when its warp waits for its group.
struct WarpProduct {
  virtual ~WarpProduct() = default;
  virtual void compute(WarpProduct* const* lanes) = 0;
  const void* sums = nullptr;  // where they are
  int group = 0;
};
void start_product(WarpProduct* product);
bool is_summing(const void* sums);  // for a product that this thread has under way
void end_product_group();
void finish_products(const Site& site, int groups_left);

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
  int count() const { return static_cast<int>(index_.size()); }
  // The operands of its statement, to be kept.
  std::vector<Operand> kept(const Operand* operands) const { return {operands, operands + statement_count_}; }

 private:
  std::string name_;
  Site site_;
  void (*run_)(const Instruction&, Operand*);
  std::vector<int> index_;  // among those of the statement; -1: a literal
  std::vector<int64_t> literal_;
  int statement_count_ = 0;
};
using Run = void (*)(const Instruction&, Operand*);
Run find_hopper(const std::string& name, int operand_count);  // null: there is none

struct Kernel {
  void (*call)(void** args);
  const size_t* sizes;  // of its parameters
  size_t count;
  unsigned max_threads;
};

// Runs a kernel to its end. Null, or what went wrong.
const char* launch(const Kernel& kernel, Dim3 grid, Dim3 block, size_t shared_bytes, void** args);

}  // namespace emulator
