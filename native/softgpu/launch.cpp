// How does a kernel of the soft libgatun become work of a stream, and what is known of its operands?
#include "core.h"
#include "enqueue.h"

using namespace softgpu;

namespace {

// A launch that softgpu owns; graphs and streams share it.
struct OwnedLaunch {
  softgpu_launch functions;
  void *launch;
  std::vector<softgpu_operand> operands;
  OwnedLaunch(const softgpu_launch &f, const void *l, const softgpu_operand *o, size_t n)
      : functions(f), launch(f.clone(l)), operands(o, o + n) {}
  OwnedLaunch(const OwnedLaunch &) = delete;
  OwnedLaunch &operator=(const OwnedLaunch &) = delete;
  ~OwnedLaunch() { functions.destroy(launch); }

  // Nothing of a kernel's operands can be known but where they start.
  bool operands_are_alive(std::string &why) const {
    const Lock lock(state().mutex);
    for (const softgpu_operand &operand : operands) {
      const auto *address = reinterpret_cast<const void *>(operand.word);
      if (!address) continue;
      const Where where = place_of(address).where;
      if (where == Where::DEVICE || where == Where::PINNED || (where == Where::UNKNOWN && !operand.is_pointer))
        continue;
      if (where == Where::FREED) ++state().counters[SOFTGPU_FREED_HITS];
      char kernel[512] = "";
      functions.describe(launch, kernel, sizeof kernel);
      why = format("kernel %s: operand %s", kernel, describe(address).c_str());
      return false;
    }
    return true;
  }

  int run(std::string &why) const {
    if (!operands_are_alive(why)) return ILLEGAL_ADDRESS;
    const char *fault = "";
    const int code = functions.run(launch, &fault);
    if (code) why = fault;
    return code;
  }
};

}  // namespace

extern "C" {

int softgpu_enqueue(void *handle, const softgpu_launch *functions, const void *launch, const softgpu_operand *operands,
                    size_t num_operands) {
  const Lock lock(state().mutex);
  State &s = state();
  if (const int code = use_of(Symbol::softgpu_enqueue)) {
    if (ends_context(code)) lose(code, s.fault_text);
    return code;
  }
  if (s.lost) return s.lost;
  Stream *stream = find_stream(handle);
  if (!stream || stream->device != current_device()) return INVALID_HANDLE;
  if (s.settings.kernels_empty) return submit_launch(*stream, nullptr);
  auto owned = std::make_shared<OwnedLaunch>(*functions, launch, operands, num_operands);
  return submit_launch(*stream, [owned](std::string &why) { return owned->run(why); });
}

}  // extern "C"
