#include "headwise/cache.h"

#include <algorithm>
#include <array>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "attention/derive.h"
#include "attention/host_tensors.h"
#include "attention/index_arrays.h"
#include "attention/rotary_rows.h"
#include "core/parallel_for.h"
#include "core/try.h"

namespace headwise {
namespace {

constexpr std::string_view kNewLayout = "[batch, seq_new, kv_heads, head_dim]";
constexpr std::string_view kCacheLayout = "[batch, capacity, kv_heads, head_dim]";
constexpr std::string_view kPagedLayout = "[pages, page_size, kv_heads, head_dim]";

std::string number(std::int64_t value) { return std::to_string(value); }

struct Append {
  const CacheAppendArgs* args;
  std::int64_t batch = 0;
  std::int64_t longest = 0;   // most new rows a sequence may have
  std::int64_t capacity = 0;  // places of a sequence
  MoveRow move = nullptr;
  std::int64_t rows_per_task = 1;
  std::int64_t tasks_per_sequence = 1;

  [[nodiscard]] bool paged() const { return args->block_table.present(); }
  [[nodiscard]] std::int64_t page_size() const { return args->k_cache.shape[1]; }
  [[nodiscard]] std::int64_t length(std::int64_t b) const {
    return args->lengths_kv.present() ? index_at(args->lengths_kv, b) : 0;
  }
  [[nodiscard]] std::int64_t count(std::int64_t b) const {
    const TensorView& offsets = args->cu_seqlens_new;
    if (offsets.present()) return index_at(offsets, b + 1) - index_at(offsets, b);
    return args->counts_new.present() ? index_at(args->counts_new, b) : longest;
  }
  void rows(std::int64_t task) const;
  void row(std::int64_t b, std::int64_t r) const;
};

Status check_pair(const Argument& k, const Argument& v, std::string_view layout) {
  for (const Argument& tensor : {k, v}) {
    if (tensor.view.present() || &tensor.view == &k.view)
      HEADWISE_TRY(check_host_tensor(tensor, 4, layout, {DType::f32, DType::f16, DType::bf16}));
  }
  if (!v.view.present()) return {};
  HEADWISE_TRY(check_dtype(v, {k.view.dtype}, "dtype of " + std::string(k.name)));
  return check_extents_as(v, k, 1);
}

Status check_tensors(const CacheAppendArgs& args) {
  const Argument k_new{"k_new", args.k_new};
  const Argument v_new{"v_new", args.v_new};
  const Argument k_cache{"k_cache", args.k_cache};
  const Argument v_cache{"v_cache", args.v_cache};
  HEADWISE_TRY(check_pair(k_new, v_new, kNewLayout));
  HEADWISE_TRY(check_pair(k_cache, v_cache, args.block_table.present() ? kPagedLayout : kCacheLayout));
  if (v_new.view.present() != v_cache.view.present()) {
    return Status::invalid_argument(std::string(v_new.view.present() ? "v_cache" : "v_new") +
                                    ": missing; give v_new and v_cache, or neither");
  }
  if (k_new.view.dtype != DType::f32)
    HEADWISE_TRY(check_dtype(k_new, {k_cache.view.dtype}, "dtype of k_cache, or f32"));
  HEADWISE_TRY(check_extent(k_new, 2, k_cache.extent(2), "kv_heads of k_cache"));
  HEADWISE_TRY(check_extent(k_new, 3, k_cache.extent(3), "head_dim of k_cache"));
  return v_new.view.present() ? check_extent(v_new, 3, v_cache.extent(3), "head_dim_v of v_cache") : Status();
}

Status check_counts(const CacheAppendArgs& args, Append& append) {
  const Argument k_new{"k_new", args.k_new};
  const Argument offsets{"cu_seqlens_new", args.cu_seqlens_new};
  const Argument counts{"counts_new", args.counts_new};
  if (offsets.view.present()) {
    if (counts.view.present())
      return Status::invalid_argument(
          "counts_new: not with cu_seqlens_new, which tells how many rows there are");
    HEADWISE_TRY(check_host_tensor(offsets, 1, "[batch + 1]", {DType::int32}));
    HEADWISE_TRY(check_packed(offsets, k_new, {}));
    append.batch = offsets.extent(0) - 1;
    return check_offsets(offsets, k_new.extent(1), "rows of k_new", append.longest);
  }
  append.batch = k_new.extent(0);
  append.longest = k_new.extent(1);
  if (!counts.view.present()) return {};
  HEADWISE_TRY(check_host_tensor(counts, 1, "[batch]", {DType::int32}));
  HEADWISE_TRY(check_extent(counts, 0, append.batch, "batch of k_new"));
  for (std::int64_t b = 0; b < append.batch; ++b) {
    if (append.count(b) >= 0 && append.count(b) <= append.longest) continue;
    return Status::invalid_argument(entry(counts, b) + ": expected 0 to " + number(append.longest) +
                                    " (rows of k_new), got " + number(append.count(b)));
  }
  return {};
}

// Places of each sequence, and whether old and new keys fit into them.
Status check_capacity(const CacheAppendArgs& args, Append& append) {
  const Argument cache{"k_cache", args.k_cache};
  const Argument table{"block_table", args.block_table};
  const Argument lengths{"lengths_kv", args.lengths_kv};
  append.capacity = cache.extent(1);
  if (table.view.present()) {
    HEADWISE_TRY(check_host_tensor(table, 2, "[batch, pages of a sequence]", {DType::int32}));
    HEADWISE_TRY(check_extent(table, 0, append.batch, "batch of k_new"));
    if (cache.extent(1) == 0)
      return Status::invalid_argument("k_cache.shape[1] (page_size): expected at least 1, got 0");
    if (__builtin_mul_overflow(table.extent(1), cache.extent(1), &append.capacity))
      append.capacity = std::numeric_limits<std::int64_t>::max();
  } else {
    HEADWISE_TRY(check_extent(cache, 0, append.batch, "batch of k_new"));
  }
  if (lengths.view.present()) {
    HEADWISE_TRY(check_host_tensor(lengths, 1, "[batch]", {DType::int32}));
    HEADWISE_TRY(check_extent(lengths, 0, append.batch, "batch of k_new"));
  }
  // Lengths are int32 here and in attention().
  append.capacity = std::min<std::int64_t>(append.capacity, std::numeric_limits<std::int32_t>::max());
  for (std::int64_t b = 0; b < append.batch; ++b) {
    const std::int64_t length = append.length(b);
    if (length < 0 || length > append.capacity) {
      return Status::invalid_argument(entry(lengths, b) + ": expected 0 to " + number(append.capacity) +
                                      " (keys there is room for), got " + number(length));
    }
    if (append.count(b) <= append.capacity - length) continue;
    return Status::invalid_argument(std::string(append.paged() ? "block_table" : "k_cache") + ": sequence " +
                                    number(b) + " has room for " + number(append.capacity) + " keys; " +
                                    number(length) + " in use and " + number(append.count(b)) +
                                    " new ones are more; give it " +
                                    (append.paged() ? "more pages" : "a larger cache"));
  }
  return {};
}

// New rows of one sequence within one page.
struct Slots {
  std::int64_t page = 0, begin = 0, end = 0;
  std::int64_t sequence = 0, entry = 0;  // block_table[sequence, entry] is page
};

Status find_slots(const CacheAppendArgs& args, const Append& append, std::vector<Slots>& slots) {
  const std::int64_t size = append.page_size();
  for (std::int64_t b = 0; b < append.batch; ++b) {
    const std::int64_t end = append.length(b) + append.count(b);
    for (std::int64_t place = append.length(b); place < end; place = (place / size + 1) * size) {
      const std::int64_t page = index_at(args.block_table, b, place / size);
      if (page < 0 || page >= args.k_cache.shape[0]) {
        return Status::invalid_argument("block_table[" + number(b) + ", " + number(place / size) +
                                        "]: expected a page from 0 to " + number(args.k_cache.shape[0] - 1) +
                                        ", got " + number(page));
      }
      slots.push_back({page, place % size, std::min(size, place % size + end - place), b, place / size});
    }
  }
  return {};
}

// Pages that get new rows exist, and no two rows go to one place.
Status check_pages(const CacheAppendArgs& args, const Append& append) {
  if (!append.paged()) return {};
  std::vector<Slots> slots;
  try {
    HEADWISE_TRY(find_slots(args, append, slots));
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory("append_to_cache: no memory to sort the pages that get new rows");
  }
  std::sort(slots.begin(), slots.end(), [](const Slots& a, const Slots& b) {
    return std::pair(a.page, a.begin) < std::pair(b.page, b.begin);
  });
  for (std::size_t i = 1; i < slots.size(); ++i) {
    const Slots& a = slots[i - 1];
    const Slots& b = slots[i];
    if (a.page != b.page || b.begin >= a.end) continue;
    return Status::invalid_argument(
        "block_table[" + number(b.sequence) + ", " + number(b.entry) + "]: page " + number(b.page) +
        " gets new rows at the same places from block_table[" + number(a.sequence) + ", " + number(a.entry) +
        "]; give each growing sequence pages of its own");
  }
  return {};
}

Status check_positions(const CacheAppendArgs& args, const Append& append) {
  if (!args.rotary.present()) return {};
  HEADWISE_TRY(check_rotary(args.rotary, args.k_new.shape[3]));
  const std::int64_t positions = args.rotary.cos.shape[0];
  for (std::int64_t b = 0; b < append.batch; ++b) {
    if (append.count(b) == 0 || append.length(b) + append.count(b) <= positions) continue;
    return Status::invalid_argument("rotary.cos.shape[0]: expected at least " +
                                    number(append.length(b) + append.count(b)) +
                                    " positions (places of new keys of sequence " + number(b) + "), got " +
                                    number(positions) + "; make larger tables");
  }
  return {};
}

Status check_outputs(const CacheAppendArgs& args, const Append& append) {
  const Argument lengths_out{"lengths_out", args.lengths_out};
  if (lengths_out.view.present()) {
    HEADWISE_TRY(check_host_tensor(lengths_out, 1, "[batch]", {DType::int32}));
    HEADWISE_TRY(check_extent(lengths_out, 0, append.batch, "batch of k_new"));
  }
  const std::array<Argument, 3> outputs = {
      Argument{"k_cache", args.k_cache}, {"v_cache", args.v_cache}, lengths_out};
  const std::array<Argument, 8> inputs = {
      Argument{"k_new", args.k_new},   {"v_new", args.v_new},
      {"lengths_kv", args.lengths_kv}, {"block_table", args.block_table},
      {"counts_new", args.counts_new}, {"cu_seqlens_new", args.cu_seqlens_new},
      {"rotary.cos", args.rotary.cos}, {"rotary.sin", args.rotary.sin}};
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    HEADWISE_TRY(check_writable(outputs[i]));
    for (const Argument& input : inputs) {
      if (i == 2 && same_view(lengths_out.view, input.view) && input.name == "lengths_kv") continue;
      HEADWISE_TRY(check_no_overlap(outputs[i], input));
    }
    for (std::size_t j = 0; j < i; ++j) HEADWISE_TRY(check_no_overlap(outputs[i], outputs[j]));
  }
  return {};
}

void move_heads(const TensorView& from, std::int64_t from_row, const TensorView& to, std::int64_t to_row,
                MoveRow move, const RowRotation* rotation) {
  const auto from_size = static_cast<std::int64_t>(size_of(from.dtype));
  const auto to_size = static_cast<std::int64_t>(size_of(to.dtype));
  for (std::int64_t h = 0; h < from.shape[2]; ++h) {
    move(from.as<const char>() + (from_row + h * from.stride[2]) * from_size,
         to.as<char>() + (to_row + h * to.stride[2]) * to_size, from.shape[3], rotation);
  }
}

void Append::row(std::int64_t b, std::int64_t r) const {
  const bool packed = args->cu_seqlens_new.present();
  const std::int64_t from_item = packed ? 0 : b;
  const std::int64_t from_row = packed ? index_at(args->cu_seqlens_new, b) + r : r;
  const std::int64_t place = length(b) + r;
  const std::int64_t item = paged() ? index_at(args->block_table, b, place / page_size()) : b;
  const std::int64_t slot = paged() ? place % page_size() : place;
  const auto offset = [](const TensorView& t, std::int64_t i, std::int64_t j) {
    return i * t.stride[0] + j * t.stride[1];
  };
  RowRotation rotation;
  if (args->rotary.present()) rotation = row_rotation(args->rotary, place);
  move_heads(args->k_new, offset(args->k_new, from_item, from_row), args->k_cache,
             offset(args->k_cache, item, slot), move, args->rotary.present() ? &rotation : nullptr);
  if (args->v_new.present())
    move_heads(args->v_new, offset(args->v_new, from_item, from_row), args->v_cache,
               offset(args->v_cache, item, slot), move, nullptr);
}

void Append::rows(std::int64_t task) const {
  const std::int64_t b = task / tasks_per_sequence;
  const std::int64_t begin = task % tasks_per_sequence * rows_per_task;
  const std::int64_t end = std::min(begin + rows_per_task, count(b));
  for (std::int64_t r = begin; r < end; ++r) row(b, r);
}

Status check_arguments(const CacheAppendArgs& args, Append& append) {
  HEADWISE_TRY(check_tensors(args));
  HEADWISE_TRY(check_counts(args, append));
  HEADWISE_TRY(check_capacity(args, append));
  HEADWISE_TRY(check_pages(args, append));
  HEADWISE_TRY(check_positions(args, append));
  return check_outputs(args, append);
}

}  // namespace

Status append_to_cache(const CacheAppendArgs& args, const Execution& execution) {
  HEADWISE_TRY(check_threads(execution));
  Append append{&args};
  HEADWISE_TRY(check_arguments(args, append));
  const bool empty = Argument{"", args.k_new}.empty() && Argument{"", args.v_new}.empty();
  if (!empty && append.batch > 0) {
    constexpr std::int64_t kElementsPerTask = 1 << 14;
    const std::int64_t row = args.k_new.shape[2] * (args.k_new.shape[3] + args.v_new.shape[3]);
    append.move = move_row(args.k_new.dtype, args.k_cache.dtype);
    append.rows_per_task = std::max<std::int64_t>(1, kElementsPerTask / row);
    append.tasks_per_sequence = (append.longest - 1) / append.rows_per_task + 1;
    core::parallel_for(
        append.batch * append.tasks_per_sequence,
        threads_for(execution, args.k_new.shape[0] * args.k_new.shape[1] * row),
        [](void* context, std::int64_t task, int) { static_cast<const Append*>(context)->rows(task); },
        &append, execution.executor);
  }
  if (!args.lengths_out.present()) return {};
  for (std::int64_t b = 0; b < append.batch; ++b)
    args.lengths_out.as<std::int32_t>()[b * args.lengths_out.stride[0]] =
        static_cast<std::int32_t>(append.length(b) + append.count(b));
  return {};
}

}  // namespace headwise
