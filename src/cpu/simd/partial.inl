// What a tile has of its keys so far, and the memory that it is computed in.

// State of a tile's lanes: `reference` = maximum of the raw scores, -inf before the first key; `sum` = sum
// of exp(scale * (score - reference)), 0 before the first key.
struct Partial {
  float* o;          // [head_dim_v][lanes]
  float* reference;  // [lanes]
  float* sum;        // [lanes]
};

// What of two partials of a vector of lanes goes into their sum.
struct Shares {
  Float keep, take;
  Mask nothing;  // lanes that `from` has nothing for
};

// References and sums of `to` take in those of `from`, whose keys come later. Lanes that `from` has nothing
// for keep their bits.
inline Shares merge_sums(Scale scale, const Partial& from, const Partial& to, std::int64_t at) {
  const Float by = broadcast(scale.log2);
  const Float a = load(to.reference + at);
  const Float b = load(from.reference + at);
  const Float added = load(from.sum + at);
  const Mask nothing = equal(added, zero());
  const Float next = maximum(b, a);
  const Float shift = select(equal(next, broadcast(-__builtin_inff())), zero(), next);
  const Float keep = exp2_nonpositive(multiply(subtract(a, shift), by));
  const Float take = exp2_nonpositive(multiply(subtract(b, shift), by));
  store(to.reference + at, next);
  const Float sum = load(to.sum + at);
  store(to.sum + at, select(nothing, sum, fma(added, take, multiply(sum, keep))));
  return {keep, take, nothing};
}

// A worker's memory for one tile at a time.
struct BlockScratch {
  float* s;                // block_kv * lanes scores
  float* factor;           // a value a lane
  unsigned char* staged;   // K and V of a block, or of a chunk
  unsigned char* visible;  // V of a block without hidden keys
};
