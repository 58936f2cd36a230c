// The instructions that GPUs of 9.0 add: barriers in shared memory (mbarrier), numbered barriers, TMA copies and the
// matrix instructions of warpgroups, as defined in NVIDIA's "Parallel Thread Execution ISA". Copies and products are
// completed as late as the definition allows; until then their results are poisoned.
#include <dimorph/dtype.h>
#include <stdlib.h>
#include <string.h>

#include <string>
#include <vector>

#include "runtime.h"
#include "tensor_map.h"

namespace emulator {
namespace {

uint32_t address(const Instruction& instruction, const Operand* operands, int i) {
  return instruction.in<uint32_t>(operands, i);
}

// --- mbarrier ---

// An mbarrier in shared memory.
struct Barrier {
  uint16_t count;                    // arrivals in each phase
  uint16_t pending : 15, phase : 1;  // of this phase: missing arrivals, parity
  int32_t bytes;                     // of this phase: missing bytes
};
static_assert(sizeof(Barrier) == 8, "an mbarrier");

Barrier& barrier(uint32_t address, const Site& site) {
  return *static_cast<Barrier*>(shared_pointer(address, sizeof(Barrier), site));
}
void complete(Barrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  barrier.phase ^= 1;
  barrier.pending = barrier.count;
}

// mbarrier.init [barrier], count
void init_barrier(const Instruction& instruction, Operand* operands) {
  const auto count = static_cast<uint16_t>(instruction.in<uint32_t>(operands, 1));
  barrier(address(instruction, operands, 0), instruction.site()) = {count, count, 0, 0};
}
void arrive(const Instruction& instruction, uint32_t address, int bytes) {
  Barrier& b = barrier(address, instruction.site());
  if (b.pending == 0) fail("%s: more arrivals than the barrier was made for", instruction.site().what);
  b.bytes += bytes;
  --b.pending;
  complete(b);
}
// mbarrier.arrive _, [barrier]
void arrive_at_barrier(const Instruction& instruction, Operand* operands) {
  arrive(instruction, address(instruction, operands, 0), 0);
}
// mbarrier.arrive.expect_tx _, [barrier], bytes
void announce_bytes(const Instruction& instruction, Operand* operands) {
  arrive(instruction, address(instruction, operands, 0), instruction.in<int32_t>(operands, 1));
}
// mbarrier.try_wait.parity done, [barrier], parity; in a loop until done
void wait_for_phase(const Instruction& instruction, Operand* operands) {
  struct Awaited {
    const Barrier* barrier;
    uint32_t parity;
  } awaited{&barrier(address(instruction, operands, 0), instruction.site()), instruction.in<uint32_t>(operands, 1)};
  wait_until(
      instruction.site(),
      [](const void* what) {
        const auto& a = *static_cast<const Awaited*>(what);
        return a.barrier->phase != a.parity;
      },
      &awaited);
}

// --- Numbered barriers ---

// barrier.cta.sync number, threads; barrier.cta.arrive does not wait
template <bool waits>
void meet(const Instruction& instruction, Operand* operands) {
  const auto number = instruction.in<uint32_t>(operands, 0), threads = instruction.in<uint32_t>(operands, 1);
  if (number >= 16 || threads % 32 != 0) fail("%s: barrier %u of %u threads", instruction.site().what, number, threads);
  Numbered& b = numbered_barrier(number);
  if (b.arrived > 0 && b.threads != threads)
    fail("%s: barrier %u for %u threads, others came to one for %u", instruction.site().what, number, threads,
         b.threads);
  b.threads = threads;
  if (++b.arrived == threads) {
    b.arrived = 0;
    ++b.round;
  } else if (waits) {
    struct Awaited {
      const Numbered* barrier;
      unsigned round;
    } awaited{&b, b.round};
    wait_until(
        instruction.site(),
        [](const void* what) {
          const auto& a = *static_cast<const Awaited*>(what);
          return a.barrier->round != a.round;
        },
        &awaited);
  }
}

// --- TMA copies ---

uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

// cp.async.bulk.tensor.Nd [to], [map, {coordinates}], [barrier], cache: copies a box, first dimension fastest.
struct BoxCopy : BlockCopy {
  TensorMap map;
  int64_t coordinates[5];
  uint32_t to, barrier_at;
  Site site;

  void land() override {
    for (uint32_t i = 0; i < map.box_bytes() / 2; ++i) {
      const char* from = map.base;
      bool inside = true;
      uint32_t rest = i;
      for (unsigned d = 0; d < map.rank; ++d) {
        const int64_t at = coordinates[d] + rest % map.box[d];
        rest /= map.box[d];
        inside &= at >= 0 && at < int64_t{map.sizes[d]};
        from += at * (d == 0 ? 2 : int64_t(map.strides[d - 1]));
      }
      uint16_t element = 0;
      if (inside) memcpy(&element, from, 2);
      memcpy(shared_pointer(swizzled(to + 2 * i), 2, site), &element, 2);
    }
    Barrier& b = barrier(barrier_at, site);
    b.bytes -= static_cast<int32_t>(map.box_bytes());
    complete(b);
  }
};
template <unsigned rank>
void copy_box(const Instruction& instruction, Operand* operands) {
  auto* copy = new BoxCopy;
  copy->site = instruction.site();
  copy->to = address(instruction, operands, 0);
  memcpy(&copy->map, instruction.in<const void*>(operands, 1), sizeof copy->map);
  for (unsigned d = 0; d < rank; ++d) copy->coordinates[d] = instruction.in<int32_t>(operands, 2 + d);
  copy->barrier_at = address(instruction, operands, 2 + rank);
  if (copy->map.rank != rank || copy->map.magic != kTensorMap) fail("%s: not such a tensor map", copy->site.what);
  // The rows of a box are 128 bytes long. They are swizzled by their address, in patterns of 8 rows.
  if (copy->to % 128 != 0) fail("%s: address %u is no multiple of 128", copy->site.what, copy->to);
  for (uint32_t i = 0; i < copy->map.box_bytes(); i += 16)
    memset(shared_pointer(copy->to + i, 16, copy->site), kPoison, 16);
  start_block_copy(copy);
}

// --- Matrix instructions of a warpgroup: each warp has 16 rows ---

struct Matrix {
  uint32_t start, leading, stride;
  explicit Matrix(uint64_t descriptor)
      : start((descriptor & 0x3fff) << 4),
        leading((descriptor >> 16 & 0x3fff) << 4),
        stride((descriptor >> 32 & 0x3fff) << 4) {
    if (descriptor >> 62 != 1) fail("wgmma: only matrices swizzled over 128 bytes are emulated");
  }
  // An element if the 16 elements of a row are contiguous ...
  template <typename T>
  float in_row(int row, int k, const Site& site) const {
    return at<T>(start + row / 8 * stride + row % 8 * 128 + k * 2, site);
  }
  // ... or if the elements of a column are.
  template <typename T>
  float in_column(int column, int k, const Site& site) const {
    return at<T>(start + column / 64 * leading + k / 8 * stride + k % 8 * 128 + column % 64 * 2, site);
  }

 private:
  template <typename T>
  static float at(uint32_t address, const Site& site) {
    T value;
    memcpy(&value, shared_pointer(swizzled(address), 2, site), 2);
    return static_cast<float>(value);
  }
};

// wgmma.mma_async {d...}, a, b, add, 1, 1, transposed a, transposed b; or, with a in registers, {d...}, {a0 .. a3}, b,
// 1, 1, 1, transposed b. A lane has the same elements of d, and of a in registers, as in mma.m16n8k16.
template <typename T, int columns, bool a_in_registers>
struct Product : WarpProduct {
  static constexpr int kCount = columns / 2;
  const Instruction* instruction;
  std::vector<Operand> operands;  // of this lane
  std::vector<float> before;      // the old sums; empty if an earlier product that is under way adds to them

  static void begin(const Instruction& instruction, Operand* operands) {
    auto* product = new Product;
    product->instruction = &instruction;
    product->operands.assign(operands, operands + instruction.statement_count());
    product->sums = operands[0].output;
    const bool first = !is_summing(product->sums);
    for (int i = 0; i < kCount; ++i) {
      if (first) product->before.push_back(instruction.in<float>(operands, i));
      memset(operands[i].output, kPoison, 4);
    }
    start_product(product);
  }

  // Called when all lanes of the warp have begun the product.
  void compute(WarpProduct* const* lanes) override {
    const Site& site = instruction->site();
    const auto lane_of = [&](int lane) { return static_cast<Product*>(lanes[lane]); };
    const int first_row = static_cast<int>(threadIdx.x / 32 % 4) * 16;
    float a[16][16], b[16][columns];
    const int n = kCount;
    const Matrix right(in<uint64_t>(a_in_registers ? n + 4 : n + 1));
    const bool add = a_in_registers || in<uint32_t>(n + 2) != 0;
    const bool b_in_rows = in<int64_t>(a_in_registers ? n + 8 : n + 6) == 0;
    if (a_in_registers) {
      for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 4; ++i)
          for (int e = 0; e < 2; ++e) {
            const auto bits = static_cast<uint16_t>(lane_of(lane)->template in<uint32_t>(n + i) >> 16 * e);
            T value;
            memcpy(&value, &bits, 2);
            a[lane / 4 + i % 2 * 8][lane % 4 * 2 + i / 2 * 8 + e] = static_cast<float>(value);
          }
    } else {
      const Matrix left(in<uint64_t>(n));
      for (int row = 0; row < 16; ++row)
        for (int k = 0; k < 16; ++k) a[row][k] = left.in_row<T>(first_row + row, k, site);
    }
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < columns; ++column)
        b[k][column] = b_in_rows ? right.in_row<T>(column, k, site) : right.in_column<T>(column, k, site);
    for (int lane = 0; lane < 32; ++lane) {
      Product& own = *lane_of(lane);
      for (int i = 0; i < kCount; ++i) {
        const int row = lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        float sum = 0;
        if (add) {
          if (own.before.empty())
            memcpy(&sum, own.operands[i].output, 4);
          else
            sum = own.before[i];
        }
        for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
        memcpy(own.operands[i].output, &sum, 4);
      }
    }
  }
  template <typename V>
  V in(int i) const {
    return instruction->in<V>(operands.data(), i);
  }
};

// wgmma.wait_group left
void wait_for_products(const Instruction& instruction, Operand* operands) {
  finish_products(instruction.site(), static_cast<int>(instruction.in<int64_t>(operands, 0)));
}
void end_group(const Instruction&, Operand*) { end_product_group(); }
void nothing(const Instruction&, Operand*) {}

template <typename T, int columns>
void find_product(const std::string& type, const std::string& name, bool a_in_registers, Run* run) {
  const std::string mine =
      "wgmma.mma_async.sync.aligned.m64n" + std::to_string(columns) + "k16.f32." + type + "." + type;
  if (name == mine) *run = a_in_registers ? Product<T, columns, true>::begin : Product<T, columns, false>::begin;
  if constexpr (columns > 16) find_product<T, columns - 16>(type, name, a_in_registers, run);
}

}  // namespace

Run find_hopper(const char* text, int operand_count) {
  const std::string name = text;
  constexpr struct {
    const char* name;
    Run run;
  } kInstructions[] = {
      {"mbarrier.init.shared::cta.b64", init_barrier},
      {"fence.mbarrier_init.release.cluster", nothing},
      {"mbarrier.arrive.shared::cta.b64", arrive_at_barrier},
      {"mbarrier.arrive.expect_tx.shared::cta.b64", announce_bytes},
      {"mbarrier.try_wait.parity.shared::cta.b64", wait_for_phase},
      {"barrier.cta.sync", meet<true>},
      {"barrier.cta.arrive", meet<false>},
      {"fence.proxy.async.shared::cta", nothing},
      {"prefetch.tensormap", nothing},
      {"setmaxnreg.dec.sync.aligned.u32", nothing},
      {"setmaxnreg.inc.sync.aligned.u32", nothing},
      {"cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint", copy_box<4>},
      {"cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint", copy_box<5>},
      {"wgmma.fence.sync.aligned", nothing},
      {"wgmma.commit_group.sync.aligned", end_group},
      {"wgmma.wait_group.sync.aligned", wait_for_products},
  };
  for (const auto& one : kInstructions)
    if (name == one.name) return one.run;
  // The form of a product follows from the number of operands in addition to the sums.
  Run run = nullptr;
  const size_t at = name.find(".m64n");
  if (at == std::string::npos) return nullptr;
  const bool a_in_registers = operand_count - atoi(name.c_str() + at + 5) / 2 == 9;
  find_product<bfloat16, 256>("bf16", name, a_in_registers, &run);
  find_product<half, 256>("f16", name, a_in_registers, &run);
  return run;
}

}  // namespace emulator
