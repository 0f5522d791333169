// The score transform of a masked block: -inf where a lane may not see the key, then the maximum
// anew. Lane ranges are relative to the block's first key.
template <int N>
inline void mask_scores(float* s, std::int64_t keys, const std::int32_t* begin, const std::int32_t* end,
                        Float (&peak)[N]) {
  const Float minus_infinity = broadcast(-__builtin_inff());
  for (int n = 0; n < N; ++n) peak[n] = minus_infinity;
  for (std::int64_t j = 0; j < keys; ++j) {
    const Int at = broadcast_int(static_cast<std::int32_t>(j));
    for (int n = 0; n < N; ++n) {
      float* cell = s + (j * N + n) * kLanes;
      const Mask seen = within(load_int(begin + n * kLanes), at, load_int(end + n * kLanes));
      const Float x = select(seen, load(cell), minus_infinity);
      store(cell, x);
      peak[n] = maximum(x, peak[n]);
    }
  }
}
