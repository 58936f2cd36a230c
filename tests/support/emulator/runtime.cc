#include "runtime.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

// Saves the registers that a call preserves on the stack and the stack pointer in *from, and continues at the stack
// pointer `to`, saved before. swapcontext would add a system call of 0.3 us, and a tile of keys takes 20,000 switches.
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch, . - emulator_switch
)");

namespace emulator {

Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr size_t kStack = 256 << 10, kGuard = 4 << 10;

enum class State { kReady, kInWarp, kAtBarrier, kWaiting, kEnded };

struct Copy {
  void* to;
  char bytes[16];
  size_t count;
};

struct Thread {
  Dim3 index;
  State state = State::kReady;
  Site site{};
  void* own = nullptr;
  bool (*ready)(const void*) = nullptr;  // the condition, of a thread that waits
  const void* awaited = nullptr;
  std::vector<Copy> copies;
  std::vector<std::unique_ptr<WarpProduct>> products;
  int groups = 0;  // groups of products that are closed
  char* stack = nullptr;
  void* place = nullptr;  // the stack pointer, of a thread that does not run
  void* fake_stack = nullptr;
};

// Shared memory of one block, with an emulated address. The allocation has exactly the size asked for, so that
// AddressSanitizer reports accesses behind it.
class Shared {
 public:
  Shared(const void* id, size_t bytes, uint32_t address) : id(id), bytes(bytes), address(address) {
    if (posix_memalign(&memory, 1024, bytes) != 0) abort();
    memset(memory, kPoison, bytes);
  }
  Shared(Shared&& other) : id(other.id), bytes(other.bytes), address(other.address), memory(other.memory) {
    other.memory = nullptr;
  }
  ~Shared() { free(memory); }
  const void* id;
  size_t bytes;
  uint32_t address;
  void* memory = nullptr;
};

struct Block {
  std::vector<Thread> threads;
  std::vector<int> arrived;  // the number of threads that have arrived, for each warp
  std::vector<Shared> shared;
  Site barrier{};
  std::vector<std::unique_ptr<BlockCopy>> copies;
  Numbered numbered[16];
  int at_barrier = 0, ended = 0;
  bool vote = false, voted = false;
};

Block* block;
Thread* current;
const Kernel* kernel;
void** arguments;
std::string error;
void* scheduler;  // its stack pointer while a thread runs
std::vector<char*> stacks;

// Returns a random number below `count`, in the same order in every process (Numerical Recipes' generator).
unsigned dice(size_t count) {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<unsigned>((state >> 33) % count);
}

#if defined(__SANITIZE_ADDRESS__)
void* scheduler_fake;
const void* scheduler_bottom;
size_t scheduler_size;
void leave(void** fake, const void* bottom, size_t size) { __sanitizer_start_switch_fiber(fake, bottom, size); }
void arrive(void* fake) { __sanitizer_finish_switch_fiber(fake, nullptr, nullptr); }
#endif

void resume(Thread& thread) {
  current = &thread;
  threadIdx = thread.index;
#if defined(__SANITIZE_ADDRESS__)
  leave(&scheduler_fake, thread.stack, kStack);
#endif
  emulator_switch(&scheduler, thread.place);
#if defined(__SANITIZE_ADDRESS__)
  arrive(scheduler_fake);
#endif
}

void suspend() {
  Thread& thread = *current;
#if defined(__SANITIZE_ADDRESS__)
  leave(thread.state == State::kEnded ? nullptr : &thread.fake_stack, scheduler_bottom, scheduler_size);
#endif
  emulator_switch(&thread.place, scheduler);
#if defined(__SANITIZE_ADDRESS__)
  arrive(thread.fake_stack);
#endif
}

void release_barrier() {
  for (Thread& thread : block->threads)
    if (thread.state == State::kAtBarrier) thread.state = State::kReady;
  block->voted = block->vote;
  block->vote = false;
  block->at_barrier = 0;
}

void wait_at(const Site& site, State state) {
  current->site = site;
  current->state = state;
}

std::string text(const Site& site) {
  const char* slash = strrchr(site.file, '/');
  return std::string(site.what) + " (" + (slash ? slash + 1 : site.file) + ":" + std::to_string(site.line) + ")";
}

bool same(const Site& a, const Site& b) {
  return a.line == b.line && strcmp(a.what, b.what) == 0 && strcmp(a.file, b.file) == 0;
}

__attribute__((no_sanitize("address"))) void enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
#endif
  kernel->call(arguments);
  if (!current->copies.empty()) fail("a thread ended while copies were under way that it never waited for");
  if (!current->products.empty()) fail("a thread ended while products were under way that it never waited for");
  current->state = State::kEnded;
  ++block->ended;
  if (block->at_barrier > 0 && block->at_barrier + block->ended == static_cast<int>(block->threads.size()))
    release_barrier();
  suspend();
}

void prepare(Thread& thread, char* stack) {
  thread.stack = stack;
  // The stack as emulator_switch leaves it: six registers, the return address, and null as the outermost caller.
  void** top = reinterpret_cast<void**>(stack + kStack) - 8;
  memset(top, 0, 8 * sizeof *top);
  top[6] = reinterpret_cast<void*>(&enter);
  thread.place = top;
}

char* new_stack() {
  void* memory = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuard, PROT_NONE) != 0) abort();
  return static_cast<char*>(memory) + kGuard;
}

// Runs the threads of a warp as far as they get without other warps; returns whether any ran.
bool run_warp(size_t first) {
  bool any = false;
  for (bool moved = true; moved && error.empty();) {
    moved = false;
    const unsigned scramble = dice(32);
    for (unsigned i = 0; i < 32 && error.empty(); ++i) {
      Thread& thread = block->threads[first + (i ^ scramble)];
      if (thread.state == State::kWaiting && thread.ready(thread.awaited)) thread.state = State::kReady;
      if (thread.state != State::kReady) continue;
      resume(thread);
      moved = any = true;
    }
  }
  return any;
}

// Returns the message of a deadlock: what every warp waits for.
std::string standstill() {
  std::string result = "deadlock:";
  for (size_t first = 0; first < block->threads.size(); first += 32) {
    result += " warp " + std::to_string(first / 32) + ":";
    for (size_t i = first; i < first + 32;) {
      const Thread& thread = block->threads[i];
      const auto alike = [&](const Thread& other) {
        return other.state == thread.state && (thread.state == State::kEnded || same(other.site, thread.site));
      };
      const size_t from = i;
      while (i < first + 32 && alike(block->threads[i])) ++i;
      result += " lanes " + std::to_string(from % 32) + " to " + std::to_string((i - 1) % 32);
      result += thread.state == State::kEnded ? " have ended;" : " wait in " + text(thread.site) + ";";
    }
  }
  return result;
}

void run_block(size_t shared_bytes) {
  Block now;
  now.threads.resize(size_t{blockDim.x} * blockDim.y * blockDim.z);
  now.arrived.resize(now.threads.size() / 32);
  now.shared.emplace_back(nullptr, shared_bytes, 1024);
  block = &now;
  while (stacks.size() < now.threads.size()) stacks.push_back(new_stack());
  std::vector<size_t> warps;
  for (size_t i = 0; i < now.threads.size(); ++i) {
    const unsigned x = i % blockDim.x, y = i / blockDim.x % blockDim.y, z = i / blockDim.x / blockDim.y;
    now.threads[i].index = {x, y, z};
    prepare(now.threads[i], stacks[i]);
    if (i % 32 == 0) warps.push_back(i);
  }
  while (error.empty() && now.ended < static_cast<int>(now.threads.size())) {
    for (size_t i = warps.size(); i > 1; --i) std::swap(warps[i - 1], warps[dice(i)]);
    bool moved = false;
    for (const size_t first : warps) moved |= run_warp(first);
    if (moved || !error.empty()) continue;
    if (now.copies.empty()) {
      error = standstill();
    } else {
      std::swap(now.copies[dice(now.copies.size())], now.copies.back());
      const std::unique_ptr<BlockCopy> copy = std::move(now.copies.back());
      now.copies.pop_back();
      copy->land();
    }
  }
  if (error.empty() && !now.copies.empty()) error = "a block ended while copies were under way that nobody waited for";
}

}  // namespace

void fail(const char* format, ...) {
  char line[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(line, sizeof line, format, args);
  va_end(args);
  char place[128];
  snprintf(place, sizeof place, "block %u, thread %u: ", blockIdx.x, threadIdx.x);
  error = std::string(place) + line;
  suspend();  // and is never resumed
  abort();
}

void warp_collective(const Site& site, unsigned mask, void* own, void (*whole)(void* const* lanes)) {
  if (mask != ~0u) fail("%s: only all 32 lanes together are emulated", text(site).c_str());
  const size_t self = current - block->threads.data(), warp = self / 32;
  current->own = own;
  wait_at(site, State::kInWarp);
  if (++block->arrived[warp] < 32) {
    suspend();
    return;
  }
  Thread* lanes = &block->threads[warp * 32];
  void* brought[32];
  for (int i = 0; i < 32; ++i) {
    if (!same(lanes[i].site, site))
      fail("lanes of one warp meet at different places: lane %zu in %s, lane %d in %s", self % 32, text(site).c_str(),
           i, text(lanes[i].site).c_str());
    brought[i] = lanes[i].own;
  }
  whole(brought);
  block->arrived[warp] = 0;
  for (int i = 0; i < 32; ++i) lanes[i].state = State::kReady;
}

bool block_barrier(const Site& site, bool vote) {
  if (block->at_barrier == 0) block->barrier = site;
  if (!same(block->barrier, site))
    fail("threads of one block meet at different barriers: %s and %s", text(site).c_str(),
         text(block->barrier).c_str());
  block->vote |= vote;
  wait_at(site, State::kAtBarrier);
  if (++block->at_barrier + block->ended == static_cast<int>(block->threads.size()))
    release_barrier();
  else
    suspend();
  return block->voted;
}

void wait_until(const Site& site, bool (*ready)(const void*), const void* what) {
  if (ready(what)) return;
  current->ready = ready;
  current->awaited = what;
  wait_at(site, State::kWaiting);
  suspend();
}

Numbered& numbered_barrier(unsigned number) { return block->numbered[number]; }

void start_block_copy(BlockCopy* copy) { block->copies.emplace_back(copy); }

void start_product(WarpProduct* product) {
  product->group = current->groups;
  current->products.emplace_back(product);
}
bool is_summing(const void* sums) {
  for (const auto& product : current->products)
    if (product->sums == sums) return true;
  return false;
}
void end_product_group() { ++current->groups; }
void finish_products(const Site& site, int groups_left) {
  Thread* self = current;
  struct Wait {
    Thread* thread;
    int before;
  } own{self, self->groups - groups_left};
  warp_collective(site, ~0u, &own, [](void* const* brought) {
    const auto lane = [&](int i) { return static_cast<const Wait*>(brought[i]); };
    for (;;) {
      WarpProduct* products[32];
      int ready = 0;
      for (int i = 0; i < 32; ++i) {
        const auto& queue = lane(i)->thread->products;
        products[i] = queue.empty() || queue.front()->group >= lane(i)->before ? nullptr : queue.front().get();
        ready += products[i] != nullptr;
      }
      if (ready == 0) return;
      if (ready < 32) fail("lanes of one warp have begun different products");
      products[0]->compute(products);
      for (int i = 0; i < 32; ++i) lane(i)->thread->products.erase(lane(i)->thread->products.begin());
    }
  });
}

void* dynamic_shared() { return block->shared.front().memory; }

void* static_shared(const void* id, size_t bytes) {
  for (const Shared& one : block->shared)
    if (one.id == id) return one.memory;
  const Shared& last = block->shared.back();
  // At a distance from other variables, so that no access past the end of one hits another.
  return block->shared.emplace_back(id, bytes, last.address + last.bytes / 65536 * 65536 + 131072).memory;
}

uint32_t shared_address(const void* pointer) {
  for (const Shared& one : block->shared) {
    const auto offset = static_cast<const char*>(pointer) - static_cast<const char*>(one.memory);
    if (offset >= 0 && offset <= static_cast<ptrdiff_t>(one.bytes)) return one.address + static_cast<uint32_t>(offset);
  }
  fail("the address of something that is not in shared memory was asked for");
}

void* shared_pointer(uint32_t address, size_t bytes, const Site& site) {
  if (address % bytes != 0) fail("%s: address %u is no multiple of %zu", text(site).c_str(), address, bytes);
  for (const Shared& one : block->shared)
    if (address >= one.address && address + bytes <= one.address + one.bytes)
      return static_cast<char*>(one.memory) + (address - one.address);
  const Shared& dynamic = block->shared.front();
  fail("%s: byte %d is outside of the %zu bytes of shared memory", text(site).c_str(),
       static_cast<int>(address - dynamic.address), dynamic.bytes);
}

void start_copy(void* to, const void* from, size_t bytes, size_t present) {
  Copy copy{to, {}, bytes};
  memcpy(copy.bytes, from, present);
  memset(to, kPoison, bytes);
  current->copies.push_back(copy);
}

void land_copies() {
  for (const Copy& copy : current->copies) memcpy(copy.to, copy.bytes, copy.count);
  current->copies.clear();
}

const char* launch(const Kernel& launched, Dim3 grid, Dim3 threads, size_t shared_bytes, void** args) {
  kernel = &launched;
  arguments = args;
  gridDim = grid;
  blockDim = threads;
  error.clear();
  const unsigned count = threads.x * threads.y * threads.z;
  if (count == 0 || count % 32 != 0 || count > launched.max_threads) {
    error = "blocks of " + std::to_string(count) + " threads: whole warps up to the launch bounds are emulated";
    return error.c_str();
  }
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        run_block(shared_bytes);
        if (error.empty()) continue;
        stacks.clear();  // threads that did not end keep their stacks
        return error.c_str();
      }
  return nullptr;
}

}  // namespace emulator
