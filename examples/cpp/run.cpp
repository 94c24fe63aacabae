// SPDX-License-Identifier: Apache-2.0
// usage: run MODEL.gadl: lists inputs and outputs, runs once on zeros, prints counters.
#include <cstdio>
#include <gadl/gadl.hpp>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    const gadl::Model model(argv[1]);
    gadl::Context context(model);
    for (uint32_t i = 0; i < model.input_count(); ++i) std::printf("input %s: %llu bytes\n", model.input(i).name, static_cast<unsigned long long>(model.input(i).size_bytes));
    for (uint32_t i = 0; i < model.output_count(); ++i) std::printf("output %s: %llu bytes\n", model.output(i).name, static_cast<unsigned long long>(model.output(i).size_bytes));
    context.run();
    std::printf("%.0f device cycles\n", context.counters().cycles);
  } catch (const gadl::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
