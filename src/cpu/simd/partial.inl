// What a tile has of its keys so far, and the memory that it is computed in.

// State of a tile's lanes: `reference` = maximum of the raw scores, -inf before the first key; `sum` = sum
// of exp(scale * (score - reference)), 0 before the first key.
struct Partial {
  float* o;          // [head_dim_v][lanes]
  float* reference;  // [lanes]
  float* sum;        // [lanes]
};

// A worker's memory for one tile at a time.
struct BlockScratch {
  float* s;                // block_kv * lanes scores
  float* factor;           // a value a lane
  unsigned char* staged;   // K and V of a block, or of a chunk
  unsigned char* visible;  // V of a block without hidden keys
};
