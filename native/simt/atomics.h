// What do CUDA's atomics do when one thread runs at a time?
//
// Plain read-modify-write: fibers switch only where they wait. The types are those that nvcc accepts; a race build
// books the access as atomic.
#pragma once

#include <type_traits>

#include "simt/race.h"

namespace simt {

template <class T, class... Allowed> constexpr bool one_of = (std::is_same_v<T, Allowed> || ...);
template <class T> struct Exactly { using type = T; };  // an argument that does not deduce T

template <class T, class F> GT_SIMT_UNWATCHED __attribute__((noinline)) inline T read_modify_write(T *p, F f) {
  race::access(p, sizeof(T), race::Access::ATOMIC, __builtin_return_address(0));
  const T old = *p;
  *p = f(old);
  return old;
}

}  // namespace simt

// Integers wrap around as on the device, hence the detour over unsigned.
#define GT_SIMT_ATOMIC(name, expression, ...)                                                        \
  template <class T> inline T name(T *p, typename simt::Exactly<T>::type value) {                    \
    static_assert(simt::one_of<T, __VA_ARGS__>, #name " does not take this type");                   \
    return simt::read_modify_write(p, [=](T old) -> T { return expression; });                       \
  }
GT_SIMT_ATOMIC(atomicExch, ((void)old, value), int, unsigned, unsigned long long, float)
GT_SIMT_ATOMIC(atomicMin, old < value ? old : value, int, unsigned, unsigned long long, long long)
GT_SIMT_ATOMIC(atomicMax, old < value ? value : old, int, unsigned, unsigned long long, long long)
GT_SIMT_ATOMIC(atomicAnd, old & value, int, unsigned, unsigned long long)
GT_SIMT_ATOMIC(atomicOr, old | value, int, unsigned, unsigned long long)
GT_SIMT_ATOMIC(atomicXor, old ^ value, int, unsigned, unsigned long long)
GT_SIMT_ATOMIC(atomicInc, old >= value ? 0 : old + 1, unsigned)
GT_SIMT_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1, unsigned)
#undef GT_SIMT_ATOMIC

template <class T> inline T atomicAdd(T *p, typename simt::Exactly<T>::type value) {
  static_assert(simt::one_of<T, int, unsigned, unsigned long long, float, double>, "atomicAdd does not take this type");
  return simt::read_modify_write(p, [=](T old) -> T {
    if constexpr (std::is_same_v<T, int>)
      return static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value));
    else return old + value;
  });
}
template <class T> inline T atomicSub(T *p, typename simt::Exactly<T>::type value) {
  static_assert(simt::one_of<T, int, unsigned>, "atomicSub does not take this type");
  return atomicAdd(p, static_cast<T>(0u - static_cast<unsigned>(value)));
}
template <class T>
inline T atomicCAS(T *p, typename simt::Exactly<T>::type compare, typename simt::Exactly<T>::type value) {
  static_assert(simt::one_of<T, int, unsigned, unsigned long long, unsigned short>,
                "atomicCAS does not take this type");
  return simt::read_modify_write(p, [=](T old) -> T { return old == compare ? value : old; });
}
