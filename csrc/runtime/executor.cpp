// SPDX-License-Identifier: Apache-2.0
#include "executor.hpp"

#include <chrono>
#include <utility>

namespace gadl {

Executor::Executor(std::shared_ptr<const LoadedModel> model, const gadl_options& options)
    : model_(std::move(model)), arena_(model_->arena_bytes), scratch_(model_->scratch_bytes), times_(model_->steps.size(), 0) {
  devices_.reserve(model_->parts.size());  // so that no open device is lost
  for (const DevicePart& part : model_->parts) {
    const gadl_driver* driver = part.driver;
    if (options.driver != nullptr) {
      driver = gadl_find_driver(options.driver);
      if (driver == nullptr) throw DeviceError(std::string("this runtime has no driver '") + options.driver + "'");
      if (!driver->accepts(part.program.data, part.program.size)) {
        throw DeviceError(std::string("the programs are not for the driver '") + options.driver + "'");
      }
    }
    gadl_device* device = nullptr;
    char text[512] = "";
    const gadl_status status = driver->open(part.program.data, part.program.size, &options, &device, text, sizeof(text));
    if (status == GADL_ERROR_MEMORY) throw std::bad_alloc();
    if (status != GADL_OK) throw DeviceError(std::string("the driver '") + driver->name + "': " + text);
    devices_.emplace_back(device, Close{driver});
  }
  for (const Step& step : model_->steps) {
    std::vector<const uint8_t*>& in = inputs_.emplace_back();
    std::vector<uint8_t*>& out = outputs_.emplace_back();
    for (uint32_t id : step.operands) in.push_back(id == GADL_NO_TENSOR ? nullptr : address(id));
    for (uint32_t id : step.results) out.push_back(address(id));
  }
}

uint8_t* Executor::address(uint32_t tensor) const {
  const Tensor& t = model_->tensors[tensor];
  // The loader lets no step write into the weights.
  return (t.storage == GADL_STORAGE_WEIGHTS ? const_cast<uint8_t*>(model_->weights.data) : arena_.data()) + t.offset;
}

gadl_status Executor::run_segment(std::size_t number, std::string& error) {
  const Step& step = model_->steps[number];
  const gadl_driver* driver = devices_[step.segment].get_deleter().driver;
  gadl_device* device = devices_[step.segment].get();
  const auto size = [&](uint32_t id) { return static_cast<uint64_t>(model_->tensors[id].info.bytes()); };
  gadl_status status = GADL_OK;
  for (uint32_t i = 0; i < step.operands.size() && status == GADL_OK; ++i) {
    status = driver->copy(device, GADL_TO_DEVICE, i, const_cast<uint8_t*>(inputs_[number][i]), size(step.operands[i]));
  }
  if (status == GADL_OK) status = driver->submit(device);
  if (status == GADL_OK) status = driver->wait(device);
  for (uint32_t i = 0; i < step.results.size() && status == GADL_OK; ++i) {
    status = driver->copy(device, GADL_FROM_DEVICE, i, outputs_[number][i], size(step.results[i]));
  }
  if (status != GADL_OK) error = driver->last_error(device);
  return status;
}

gadl_status Executor::run(std::string& error) {
  using Clock = std::chrono::steady_clock;
  auto start = Clock::now();
  for (std::size_t i = 0; i < model_->steps.size(); ++i) {
    const Step& step = model_->steps[i];
    if (step.is_segment) {
      const gadl_status status = run_segment(i, error);
      if (status != GADL_OK) return status;
    } else {
      step.kernel.run(inputs_[i].data(), outputs_[i].data(), scratch_.data());
    }
    const auto end = Clock::now();
    times_[i] = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(end - start).count());
    start = end;
  }
  return GADL_OK;
}

gadl_status Executor::counters(gadl_counters& out) const {
  for (const Device& device : devices_) {
    gadl_counters one{};
    one.struct_size = sizeof(one);
    const gadl_status status = device.get_deleter().driver->counters(device.get(), &one);
    if (status != GADL_OK) return status;
    out.cycles += one.cycles;
    out.dram_read_bytes += one.dram_read_bytes;
    out.dram_write_bytes += one.dram_write_bytes;
    out.macs += one.macs;
  }
  return GADL_OK;
}

}  // namespace gadl
