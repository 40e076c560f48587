// Argument checks and the thread-local last-error text.
#include "check.h"

#include <cstdarg>
#include <cstdio>

namespace gt {
namespace {

thread_local char last_error[768] = "";

// "[2, 3]" into a caller's buffer.
const char *format_shape(char (&out)[160], const int64_t *shape, int rank) {
  int at = snprintf(out, sizeof out, "[");
  for (int i = 0; i < rank && at < 140; ++i)
    at += snprintf(out + at, sizeof out - at, i ? ", %lld" : "%lld", static_cast<long long>(shape[i]));
  snprintf(out + at, sizeof out - at, "]");
  return out;
}

const char *format_dtypes(char (&out)[96], uint64_t dtypes) {
  int at = 0;
  out[0] = 0;
  for (gt_dtype d = 1; d < 64; ++d)
    if (dtypes >> d & 1) at += snprintf(out + at, sizeof out - at, at ? "|%s" : "%s", dtype_name(d));
  return out;
}

}  // namespace

gt_status fail(gt_status status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(last_error, sizeof last_error, format, args);
  va_end(args);
  return status;
}

const char *last_error_text() { return last_error; }

const char *dtype_name(gt_dtype dtype) {
  switch (dtype) {
    case GT_F32: return "f32";
    case GT_BF16: return "bf16";
    case GT_F16: return "f16";
    case GT_F8_E4M3: return "f8_e4m3";
    case GT_I32: return "i32";
    case GT_I64: return "i64";
    case GT_U8: return "u8";
    default: return "unknown dtype";
  }
}

int64_t dtype_bytes(gt_dtype dtype) {
  switch (dtype) {
    case GT_F32:
    case GT_I32: return 4;
    case GT_BF16:
    case GT_F16: return 2;
    case GT_I64: return 8;
    default: return 1;
  }
}

Rows rows_of(const gt_tensor &t) {
  const int64_t c = t.shape[t.rank - 1];
  int64_t n = 1, stride = c;
  bool first = true;
  for (int i = t.rank - 2; i >= 0; --i) {
    n *= t.shape[i];
    if (t.shape[i] != 1 && first) {
      stride = t.stride[i];
      first = false;
    }
  }
  return {n, c, stride};
}

Check::Check(const char *op, const gt_stream *stream) : op_(op) {
  if (!stream) {
    status_ = fail(GT_INVALID_ARGUMENT, "%s: stream is NULL", op);
  } else if (stream->device != GT_CPU && stream->device != GT_CUDA) {
    status_ = fail(GT_INVALID_ARGUMENT, "%s: stream->device is %d, expected %d (CPU) or %d (CUDA)", op, stream->device,
                   GT_CPU, GT_CUDA);
  } else if (stream->device == GT_CPU && stream->num_threads < 1) {
    status_ = fail(GT_INVALID_ARGUMENT, "%s: stream->num_threads is %d, expected at least 1", op, stream->num_threads);
  }
}

Check &Check::tensor(const char *name, const gt_tensor *t, uint64_t dtypes) {
  if (!ok()) return *this;
  if (!t) {
    status_ = fail(GT_INVALID_ARGUMENT, "%s: %s is NULL, expected a tensor", op_, name);
    return *this;
  }
  if (t->rank < 0 || t->rank > GT_MAX_RANK) {
    status_ = fail(GT_INVALID_ARGUMENT, "%s: %s has rank %d, expected 0 to %d", op_, name, t->rank, GT_MAX_RANK);
    return *this;
  }
  if (t->dtype < 1 || t->dtype > 63 || !(dtypes >> t->dtype & 1)) {
    char expected[96];
    status_ = fail(GT_INVALID_ARGUMENT, "%s: %s is %s, expected %s", op_, name, dtype_name(t->dtype),
                   format_dtypes(expected, dtypes));
    return *this;
  }
  for (int i = 0; i < t->rank; ++i)
    if (t->shape[i] < 0) {
      char found[160];
      status_ = fail(GT_INVALID_ARGUMENT, "%s: %s has shape %s, expected no negative dimension", op_, name,
                     format_shape(found, t->shape, t->rank));
      return *this;
    }
  bool is_empty = false;  // a product of the dimensions could overflow
  for (int i = 0; i < t->rank; ++i) is_empty = is_empty || t->shape[i] == 0;
  if (!t->data && !is_empty) status_ = fail(GT_INVALID_ARGUMENT, "%s: %s->data is NULL", op_, name);
  return *this;
}

Check &Check::rank(const char *name, const gt_tensor *t, int rank) {
  if (!ok() || !t || t->rank == rank) return *this;
  char found[160];
  status_ = fail(GT_INVALID_ARGUMENT, "%s: %s has shape %s, expected rank %d", op_, name,
                 format_shape(found, t->shape, t->rank), rank);
  return *this;
}

Check &Check::shape(const char *name, const gt_tensor *t, std::initializer_list<int64_t> shape) {
  if (!ok() || !t) return *this;
  const int rank = static_cast<int>(shape.size());
  bool same = t->rank == rank;
  for (int i = 0; same && i < rank; ++i) same = shape.begin()[i] < 0 || shape.begin()[i] == t->shape[i];
  if (same) return *this;
  char found[160], expected[160];
  status_ = fail(GT_INVALID_ARGUMENT, "%s: %s has shape %s, expected %s", op_, name,
                 format_shape(found, t->shape, t->rank), format_shape(expected, shape.begin(), rank));
  return *this;
}

Check &Check::same_shape(const char *name, const gt_tensor *t, const char *other_name, const gt_tensor *other) {
  if (!ok() || !t || !other) return *this;
  bool same = t->rank == other->rank;
  for (int i = 0; same && i < t->rank; ++i) same = t->shape[i] == other->shape[i];
  if (same) return *this;
  char found[160], expected[160];
  status_ = fail(GT_INVALID_ARGUMENT, "%s: %s has shape %s, expected %s like %s", op_, name,
                 format_shape(found, t->shape, t->rank), format_shape(expected, other->shape, other->rank), other_name);
  return *this;
}

Check &Check::same_dtype(const char *name, const gt_tensor *t, const char *other_name, const gt_tensor *other) {
  if (!ok() || !t || !other || t->dtype == other->dtype) return *this;
  status_ = fail(GT_INVALID_ARGUMENT, "%s: %s is %s, expected %s like %s", op_, name, dtype_name(t->dtype),
                 dtype_name(other->dtype), other_name);
  return *this;
}

Check &Check::contiguous(const char *name, const gt_tensor *t) {
  if (!ok() || !t) return *this;
  int64_t expected = 1;
  for (int i = t->rank - 1; i >= 0; --i) {
    if (t->shape[i] != 1 && t->stride[i] != expected && elements(*t) > 0) {
      status_ = fail(GT_INVALID_ARGUMENT,
                     "%s: %s is strided (dimension %d has stride %lld), expected contiguous (%lld)", op_, name, i,
                     static_cast<long long>(t->stride[i]), static_cast<long long>(expected));
      return *this;
    }
    expected *= t->shape[i];
  }
  return *this;
}

Check &Check::last_contiguous(const char *name, const gt_tensor *t) {
  if (!ok() || !t) return *this;
  if (t->rank >= 1 && (t->shape[t->rank - 1] <= 1 || t->stride[t->rank - 1] == 1)) return *this;
  status_ = fail(GT_INVALID_ARGUMENT, "%s: the last dimension of %s has stride %lld, expected 1", op_, name,
                 t->rank >= 1 ? static_cast<long long>(t->stride[t->rank - 1]) : 0LL);
  return *this;
}

Check &Check::rows(const char *name, const gt_tensor *t) {
  if (!ok() || !t) return *this;
  if (t->rank < 1) {
    status_ = fail(GT_INVALID_ARGUMENT, "%s: %s is a scalar, expected [..., C]", op_, name);
    return *this;
  }
  last_contiguous(name, t);
  if (!ok() || elements(*t) == 0) return *this;
  const int64_t row_stride = rows_of(*t).stride;
  int64_t expected = row_stride;
  for (int i = t->rank - 2; i >= 0; --i) {
    if (t->shape[i] == 1) continue;
    if (t->stride[i] != expected) {
      status_ = fail(GT_INVALID_ARGUMENT,
                     "%s: the outer dimensions of %s do not collapse to one row stride (dimension %d has stride %lld, "
                     "expected %lld): copy it first",
                     op_, name, i, static_cast<long long>(t->stride[i]), static_cast<long long>(expected));
      return *this;
    }
    expected *= t->shape[i];
  }
  return *this;
}

Check &Check::elements_at_most(const char *name, const gt_tensor *t, int first, int64_t most) {
  if (!ok() || !t) return *this;
  int64_t n = 1;
  bool fits = true;
  for (int i = first; i < t->rank; ++i) {
    if (t->shape[i] == 0) continue;
    fits = fits && t->shape[i] <= most / n;
    if (fits) n *= t->shape[i];
  }
  if (fits) return *this;
  char found[160];
  status_ = fail(GT_INVALID_ARGUMENT,
                 "%s: %s has shape %s, expected dimensions %d to %d with a product of at most %lld", op_, name,
                 format_shape(found, t->shape, t->rank), first, t->rank - 1, static_cast<long long>(most));
  return *this;
}

Check &Check::workspace(const gt_tensor *t, int64_t bytes) {
  optional("workspace", t, dtype_bit(GT_U8)).rank("workspace", t, 1).contiguous("workspace", t);
  if (!ok() || bytes == 0) return *this;
  return require(t && t->shape[0] >= bytes && reinterpret_cast<uintptr_t>(t->data) % 16 == 0,
                 "workspace has %lld bytes, expected %lld, 16-byte aligned",
                 static_cast<long long>(t ? elements(*t) : 0), static_cast<long long>(bytes));
}

Check &Check::require(bool condition, const char *format, ...) {
  if (!ok() || condition) return *this;
  char text[512];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  status_ = fail(GT_INVALID_ARGUMENT, "%s: %s", op_, text);
  return *this;
}

}  // namespace gt
