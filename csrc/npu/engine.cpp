// SPDX-License-Identifier: Apache-2.0
#include "engine.hpp"

#include <limits>
#include <string>

#include "error.hpp"

namespace gadl::npu {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kEpsilon = 1e-7;
constexpr size_t kMostInstructions = 4'000'000;
constexpr const char* kQueueNames[] = {"CTL", "LD0", "LD1", "LD2", "ST", "MMA", "VEC"};

Unit unit_of(const Instr& instr) {
  if (instr.op == Op::EPI) return kDrain;
  return static_cast<Unit>(static_cast<int>(instr.queue));
}

std::string describe(const Instr& instr) {
  return std::string(find_op(instr.op)->name) + " on " + kQueueNames[static_cast<int>(instr.queue)] + " (debug " + std::to_string(instr.debug) + ")";
}

uint64_t macs_of(const Instr& instr) {
  switch (instr.op) {
    case Op::MMA_CONV: {
      namespace F = mma_conv;
      return instr.f[F::oh] * instr.f[F::ow] * instr.f[F::oc] * instr.f[F::kh] * instr.f[F::kw] * instr.f[F::ic];
    }
    case Op::MMA_DW: {
      namespace F = mma_dw;
      return instr.f[F::oh] * instr.f[F::ow] * instr.f[F::ic] * instr.f[F::kh] * instr.f[F::kw];
    }
    case Op::MMA_MATMUL: {
      namespace F = mma_matmul;
      return std::max<int64_t>(1, instr.f[F::batch]) * instr.f[F::m] * instr.f[F::n] * instr.f[F::k];
    }
    default: return 0;
  }
}

int64_t count(int64_t n) { return n == 0 ? 1 : n; }

bool overlap(const Access& a, const Access& b) {
  return a.space == b.space && a.region == b.region && a.begin < b.end && b.begin < a.end && (a.write || b.write);
}

double vector_cost(const Machine& m, const Instr& instr) {
  switch (instr.op) {
    case Op::VBIN: {
      namespace F = vbin;
      const int64_t n = count(instr.f[F::n0]) * count(instr.f[F::n1]) * count(instr.f[F::n2]) * count(instr.f[F::n3]);
      return vector_cycles(m, n, std::max({type_bytes(instr.f[F::a_type]), type_bytes(instr.f[F::b_type]), type_bytes(instr.f[F::out_type])}));
    }
    case Op::VUN: {
      namespace F = vun;
      const auto function = static_cast<Unary>(instr.f[F::function]);
      if (function >= Unary::EXP2 && function <= Unary::COS) return special_cycles(m, instr.f[F::count]);
      return vector_cycles(m, instr.f[F::count], std::max(type_bytes(instr.f[F::a_type]), type_bytes(instr.f[F::out_type])));
    }
    case Op::VLUT:
      if (static_cast<Type>(instr.f[vlut::a_type]) == Type::I16) return special_cycles(m, instr.f[vlut::count]);
      return vector_cycles(m, instr.f[vlut::count], type_bytes(instr.f[vlut::out_type]));
    case Op::VRED: return vector_cycles(m, instr.f[vred::n] * instr.f[vred::m], type_bytes(instr.f[vred::type]));
    case Op::VPOOL: {
      namespace F = vpool;
      return vector_cycles(m, instr.f[F::oh] * instr.f[F::ow] * instr.f[F::ic] * instr.f[F::kh] * instr.f[F::kw], type_bytes(instr.f[F::x_type]));
    }
    case Op::VRSZ: {
      namespace F = vrsz;
      return vector_cycles(m, instr.f[F::oh] * instr.f[F::ow] * instr.f[F::c] * (instr.f[F::nearest] ? 1 : 4), type_bytes(instr.f[F::type]));
    }
    case Op::VTR: {
      namespace F = vtr;
      return vector_cycles(m, count(instr.f[F::n0]) * count(instr.f[F::n1]) * count(instr.f[F::n2]) * count(instr.f[F::n3]), instr.f[F::elem_bytes]);
    }
    default: return 0;
  }
}

}  // namespace

Engine::Engine(const Program& program, const std::array<Region, kRegions>& regions, const Options& options)
    : program_(program), machine_(program.machine), regions_(regions), options_(options) {
  cores_.resize(program.cores.size());
  for (size_t i = 0; i < cores_.size(); ++i) {
    CoreState& state = cores_[i];
    state.core = std::make_unique<Core>(machine_);
    state.code = sequence(program.cores[i], machine_[Parameter::cmd_fetch_bytes_per_cycle], kMostInstructions);
    for (uint32_t k = 0; k < state.code.size(); ++k) state.queues[static_cast<int>(state.code[k].instr.queue)].push_back(k);
    report_.instructions += state.code.size();
  }
  sram_.resize(cores_.size());
  dram_.resize(kRegions);
  report_.busy.assign(cores_.size() * kQueuesPerCore, 0.0);
}

Report Engine::run() {
  for (;;) {
    while (issue_all()) {
    }
    update_rates();
    const double next = next_event();
    if (next == kNever) {
      for (const CoreState& state : cores_)
        for (int q = 0; q < kQueuesPerCore; ++q)
          if (state.heads[q] < state.queues[q].size()) deadlock();
      break;
    }
    advance(next);
  }
  report_.cycles = now_;
  return std::move(report_);
}

bool Engine::issue_all() {
  bool any = false;
  for (size_t c = 0; c < cores_.size(); ++c)
    for (int q = 0; q < kQueuesPerCore; ++q)
      while (try_issue(static_cast<int>(c), q)) any = true;
  return any;
}

bool Engine::ready(CoreState& state, int queue, const Instr& instr) const {
  if (instr.op == Op::BAR) {
    // All named cores stand at a barrier with everything before it complete.
    for (size_t c = 0; c < cores_.size(); ++c) {
      if (!((instr.f[bar::cores] >> c) & 1)) continue;
      const CoreState& other = cores_[c];
      const size_t head = other.heads[queue];
      if (head >= other.queues[queue].size() || other.code[other.queues[queue][head]].instr.op != Op::BAR) return false;
    }
  }
  for (const Semaphore& wait : instr.waits)
    if (wait.count > state.tokens[wait.index].size()) return false;
  return true;
}

bool Engine::try_issue(int core, int queue) {
  CoreState& state = cores_[core];
  if (state.heads[queue] >= state.queues[queue].size()) return false;
  const Dispatched& item = state.code[state.queues[queue][state.heads[queue]]];
  const Instr& instr = item.instr;
  const Unit unit = unit_of(instr);
  if (item.ready > now_ + kEpsilon || state.tasks[unit].active || !ready(state, queue, instr)) return false;
  const bool marker = instr.op == Op::WAIT || instr.op == Op::POST || instr.op == Op::PROF || instr.op == Op::BAR;
  if (marker && queue == static_cast<int>(Queue::MMA) && state.tasks[kDrain].active) return false;
  Task task;
  task.instr = &instr;
  task.index = static_cast<uint32_t>(state.heads[queue]) + 1;
  state.core->accesses(instr, regions_, task.accesses);
  if (queue == static_cast<int>(Queue::MMA) && hazard(state, task, unit)) return false;
  for (const Semaphore& wait : instr.waits) {
    for (int i = 0; i < wait.count; ++i) {
      if (options_.races) merge(state.clocks[queue], state.tokens[wait.index].front());
      state.tokens[wait.index].pop_front();
    }
  }
  ++state.heads[queue];
  if (marker) {
    task.clock = state.clocks[queue];
    task.clock[global(core, queue)] = task.index;
    release_posts(state, task);
    return true;
  }
  begin(core, queue, unit, std::move(task));
  return true;
}

bool Engine::hazard(const CoreState& state, const Task& task, Unit unit) const {
  const Unit other = unit == kDrain ? kArray : kDrain;
  const Task& running = state.tasks[other];
  if (!running.active) return false;
  for (const Access& a : task.accesses)
    for (const Access& b : running.accesses)
      if (overlap(a, b)) return true;
  return false;
}

void Engine::begin(int core, int queue, Unit unit, Task&& task) {
  CoreState& state = cores_[core];
  const Instr& instr = *task.instr;
  task.active = true;
  task.start = now_;
  if (options_.races) check_races(core, queue, task);
  task.clock = state.clocks[queue];
  task.clock[global(core, queue)] = task.index;
  cost(instr, task);
  demand(instr, task);
  report_.macs += macs_of(instr);
  for (const Access& access : task.accesses) {
    if (access.space == Access::Space::kDram) (access.write ? report_.dram_write_bytes : report_.dram_read_bytes) += access.bytes;
    if (access.space == Access::Space::kSram && access.write) report_.sram_peak_bytes = std::max(report_.sram_peak_bytes, access.end);
  }
  if (instr.op == Op::CALLC) {
    report_.dram_read_bytes += instr.f[callc::bytes_in];
    report_.dram_write_bytes += instr.f[callc::bytes_out];
  }
  if (options_.functional) state.core->execute(instr, regions_);
  state.tasks[unit] = std::move(task);
}

void Engine::check_races(int core, int queue, const Task& task) {
  const int self = global(core, queue);
  for (const Access& access : task.accesses) {
    if (access.space == Access::Space::kAcc) continue;  // one queue, ordered by the hazard check
    if (access.space == Access::Space::kDram && access.region == 0) continue;
    History& history = access.space == Access::Space::kSram ? sram_[core] : dram_[access.region];
    const auto conflict = history.access(access.begin, access.end, access.write, self, task.index, cores_[core].clocks[queue]);
    if (!conflict.found) continue;
    const CoreState& other = cores_[conflict.queue / kQueuesPerCore];
    const Instr& earlier = other.code[other.queues[conflict.queue % kQueuesPerCore][conflict.index - 1]].instr;
    const std::string where = access.space == Access::Space::kSram ? "SRAM" : "DRAM region " + std::to_string(access.region);
    throw SimError("race: " + describe(*task.instr) + (access.write ? " writes " : " reads ") + where + " [" + std::to_string(access.begin) + ", " +
                   std::to_string(access.end) + ") without waiting for " + describe(earlier) + (conflict.was_write ? " that wrote it" : " that reads it"));
  }
}

void Engine::cost(const Instr& instr, Task& task) const {
  const Machine& m = machine_;
  switch (instr.op) {
    case Op::LD: {
      namespace F = ld;
      const int64_t rows = count(instr.f[F::n1]) * count(instr.f[F::n2]) * count(instr.f[F::n3]), row = instr.f[F::row_bytes];
      const int64_t misalignment = instr.f[F::src] % m.integer(Parameter::dram_burst);
      task.dma = true;
      task.work = static_cast<double>(burst_bytes(m, rows, row, misalignment));
      task.fixed = dma_fixed_cycles(m, page_crossings(m, instr.f[F::src], rows, row, rows > 1 ? instr.f[F::src_s1] : row), false);
      return;
    }
    case Op::ST: {
      namespace F = st;
      const int64_t rows = count(instr.f[F::n1]) * count(instr.f[F::n2]) * count(instr.f[F::n3]), row = instr.f[F::row_bytes];
      const int64_t misalignment = instr.f[F::dst] % m.integer(Parameter::dram_burst);
      task.dma = task.store = true;
      task.work = static_cast<double>(burst_bytes(m, rows, row, misalignment));
      task.fixed = dma_fixed_cycles(m, page_crossings(m, instr.f[F::dst], rows, row, rows > 1 ? instr.f[F::dst_s1] : row), true);
      return;
    }
    case Op::FILL:
      task.fixed = m[Parameter::dma_issue];
      task.work = static_cast<double>(ceil_div(instr.f[fill::size], m.integer(Parameter::sram_bank_bytes)));
      return;
    case Op::MMA_CONV: {
      namespace F = mma_conv;
      task.work = conv_cycles(m, instr.f[F::oh] * instr.f[F::ow], instr.f[F::oc], instr.f[F::ic], instr.f[F::kh], instr.f[F::kw], static_cast<Type>(instr.f[F::x_type]));
      break;
    }
    case Op::MMA_DW: {
      namespace F = mma_dw;
      task.work = depthwise_cycles(m, instr.f[F::oh] * instr.f[F::ow], instr.f[F::ic], instr.f[F::kh] * instr.f[F::kw], static_cast<Type>(instr.f[F::x_type]));
      break;
    }
    case Op::MMA_MATMUL: {
      namespace F = mma_matmul;
      task.work = static_cast<double>(std::max<int64_t>(1, instr.f[F::batch])) *
                  conv_cycles(m, instr.f[F::m], instr.f[F::n], instr.f[F::k], 1, 1, static_cast<Type>(instr.f[F::x_type]));
      break;
    }
    case Op::EPI:
      task.fixed = m[Parameter::mma_fill];  // the last product becomes visible `fill` cycles after its operands
      task.work = drain_cycles(m, instr.f[epi::oh] * instr.f[epi::ow] * instr.f[epi::oc]);
      return;
    case Op::CALLC:
      task.work = static_cast<double>(instr.f[callc::bytes_in] + instr.f[callc::bytes_out]);
      task.dma = true;
      return;
    default:
      task.fixed = m[Parameter::vec_issue];
      task.work = vector_cost(m, instr);
      return;
  }
  // The array: launching overlaps the instruction before it, so only short instructions see it; results are visible `fill` later.
  task.work = std::max(task.work, m[Parameter::mma_issue]);
  task.fixed = 0;
}

void Engine::demand(const Instr& instr, Task& task) const {
  const int64_t groups = machine_.integer(Parameter::sram_groups);
  const int64_t size = std::max<int64_t>(1, machine_.sram_bytes() / groups);
  double work = std::max(task.work, 1.0);
  int64_t passes = 1;
  if (instr.op == Op::MMA_CONV) passes = ceil_div(instr.f[mma_conv::oc], machine_.integer(Parameter::mma_shape_1));
  if (task.dma) work = 0;
  for (const Access& access : task.accesses) {
    if (access.space != Access::Space::kSram || access.end <= access.begin) continue;
    // Input windows are read once per block of output channels; the weights stay in the array.
    const int64_t bytes = access.bytes * (instr.op == Op::MMA_CONV && access.begin == instr.f[mma_conv::x_addr] ? passes : 1);
    const double rate = work > 0 ? static_cast<double>(bytes) / work : 1.0;
    const int64_t first = access.begin / size, last = std::min((access.end - 1) / size, groups - 1);
    for (int64_t g = first; g <= last; ++g) {
      const int64_t low = std::max(access.begin, g * size), high = std::min(access.end, (g + 1) * size);
      const double part = static_cast<double>(high - low) / static_cast<double>(access.end - access.begin);
      task.demand.emplace_back(static_cast<int>(g), rate * part);
    }
  }
}

void Engine::update_rates() {
  int loads = 0;
  for (CoreState& state : cores_)
    for (Task& task : state.tasks)
      if (task.active && task.dma && task.fixed <= kEpsilon) ++loads;
  const double bandwidth = machine_[Parameter::sram_banks] * machine_[Parameter::sram_bank_bytes] / machine_[Parameter::sram_groups];
  for (CoreState& state : cores_) {
    double load[64] = {};
    for (Task& task : state.tasks) {
      if (!task.active || task.fixed > kEpsilon) continue;
      task.rate = task.dma ? dma_share(machine_, loads, task.store) : 1.0;
      for (const auto& [group, bytes] : task.demand) load[group & 63] += bytes * task.rate;
    }
    for (Task& task : state.tasks) {
      if (!task.active || task.fixed > kEpsilon) continue;
      double slow = 1.0;
      for (const auto& [group, bytes] : task.demand)
        if (bytes > 0 && load[group & 63] > bandwidth) slow = std::min(slow, bandwidth / load[group & 63]);
      task.rate *= slow;
    }
  }
}

double Engine::next_event() const {
  double next = kNever;
  for (const CoreState& state : cores_) {
    for (const Task& task : state.tasks) {
      if (!task.active) continue;
      next = std::min(next, now_ + (task.fixed > kEpsilon ? task.fixed : task.work / task.rate));
    }
    for (int q = 0; q < kQueuesPerCore; ++q) {
      if (state.heads[q] >= state.queues[q].size()) continue;
      const double ready = state.code[state.queues[q][state.heads[q]]].ready;
      if (ready > now_ + kEpsilon) next = std::min(next, ready);
    }
  }
  return next;
}

void Engine::advance(double until) {
  const double step = until - now_;
  now_ = until;
  for (size_t c = 0; c < cores_.size(); ++c) {
    for (int u = 0; u < kUnits; ++u) {
      Task& task = cores_[c].tasks[u];
      if (!task.active) continue;
      if (task.fixed > kEpsilon) {
        task.fixed -= step;
        if (task.fixed > kEpsilon || task.work > kEpsilon) continue;
      } else {
        task.work -= step * task.rate;
      }
      if (task.work <= kEpsilon * (1 + task.rate)) finish(static_cast<int>(c), static_cast<Unit>(u));
    }
  }
}

void Engine::finish(int core, Unit unit) {
  CoreState& state = cores_[core];
  Task task = std::move(state.tasks[unit]);
  state.tasks[unit] = Task{};
  const int queue = static_cast<int>(task.instr->queue);
  report_.busy[global(core, queue)] += now_ - task.start;
  report_.cycles_by_debug[task.instr->debug] += now_ - task.start;
  if (options_.trace) {
    report_.trace.push_back({static_cast<uint8_t>(core), static_cast<uint8_t>(unit), task.instr->op, task.instr->debug, task.start, now_});
  }
  if (unit == kArray || unit == kDrain) {
    const Task& other = state.tasks[unit == kArray ? kDrain : kArray];
    if (other.active && other.index < task.index) {
      state.held.emplace_back(other.index, std::move(task));
      return;
    }
  }
  release_posts(state, task);
  for (size_t i = 0; i < state.held.size();) {
    if (state.held[i].first <= task.index) {
      release_posts(state, state.held[i].second);
      state.held.erase(state.held.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      ++i;
    }
  }
}

void Engine::release_posts(CoreState& state, const Task& task) {
  for (const Semaphore& post : task.instr->posts)
    for (int i = 0; i < post.count; ++i) state.tokens[post.index].push_back(task.clock);
}

void Engine::deadlock() const {
  std::string text = "deadlock:";
  for (size_t c = 0; c < cores_.size(); ++c) {
    const CoreState& state = cores_[c];
    for (int q = 0; q < kQueuesPerCore; ++q) {
      if (state.heads[q] >= state.queues[q].size()) continue;
      const Instr& instr = state.code[state.queues[q][state.heads[q]]].instr;
      text += " core " + std::to_string(c) + " " + describe(instr) + " waits for";
      for (const Semaphore& wait : instr.waits)
        if (wait.count > state.tokens[wait.index].size()) text += " semaphore " + std::to_string(wait.index) + " >= " + std::to_string(wait.count);
      text += ";";
    }
  }
  throw SimError(text);
}

Simulator::Simulator(const uint8_t* container, uint64_t size) : program_(parse_program(container, size)) {
  regions_[0] = {const_cast<uint8_t*>(program_.constants), program_.constants_size};
}

void Simulator::bind_region(int index, uint8_t* data, uint64_t size) {
  if (index < 1 || index >= kRegions) throw SimError("only regions 1 to 7 are bound");
  regions_[index] = {data, size};
}

Report Simulator::run(const Options& options) {
  for (int i = 1; i < kRegions; ++i)
    if (regions_[i].size < program_.region_sizes[i]) throw SimError("region " + std::to_string(i) + " is smaller than the program needs");
  return Engine(program_, regions_, options).run();
}

}  // namespace gadl::npu
