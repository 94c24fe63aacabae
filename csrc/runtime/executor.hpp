// SPDX-License-Identifier: Apache-2.0
// One running instance of a loaded model: its memory, its devices, its addresses. Everything is taken in the constructor.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "memory.hpp"
#include "model.hpp"

namespace gadl {

// A device or driver failed, or the wanted one is not there.
class DeviceError : public ModelError {
 public:
  using ModelError::ModelError;
};

class Executor {
 public:
  // Opens a device per program, on the driver called `driver` (null: the one that the model found). Throws DeviceError.
  Executor(std::shared_ptr<const LoadedModel> model, const gadl_options& options);

  const LoadedModel& model() const { return *model_; }
  uint8_t* address(uint32_t tensor) const;
  // Runs all steps in order. Allocates nothing itself; on failure `error` receives the text.
  gadl_status run(std::string& error);
  // Sums over the devices, of the last run.
  gadl_status counters(gadl_counters& out) const;
  uint64_t step_time_ns(std::size_t step) const { return times_[step]; }

 private:
  struct Close {
    const gadl_driver* driver;
    void operator()(gadl_device* device) const { driver->close(device); }
  };
  using Device = std::unique_ptr<gadl_device, Close>;

  gadl_status run_segment(std::size_t step, std::string& error);

  std::shared_ptr<const LoadedModel> model_;
  Memory arena_, scratch_;
  std::vector<Device> devices_;
  // Addresses of every step's operands and results.
  std::vector<std::vector<const uint8_t*>> inputs_;
  std::vector<std::vector<uint8_t*>> outputs_;
  std::vector<uint64_t> times_;
};

}  // namespace gadl
